"""SQLAlchemy 2 with alembic: migrations up and down, reflection, the unit of work, through psycopg2 and asyncpg."""

import asyncio
import ssl
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.autogenerate import compare_metadata
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from suite import *

URL = sa.URL.create("postgresql+psycopg2", USER, PASSWORD, HOST, PORT, DB)
ENGINE = sa.create_engine(URL, connect_args={"sslmode": "verify-full", "sslrootcert": ROOTCERT})


class Base(DeclarativeBase):
    metadata = sa.MetaData(schema="warehouse")


class Shelf(Base):
    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(sa.String(40), unique=True)
    boxes: Mapped[list["Box"]] = relationship(back_populates="shelf", cascade="all, delete-orphan")


class Box(Base):
    __tablename__ = "box"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int] = mapped_column(sa.ForeignKey(Shelf.id))
    content: Mapped[dict] = mapped_column(sa.dialects.postgresql.JSONB)
    shelf: Mapped[Shelf] = relationship(back_populates="boxes")


@behaviour
def upgrade():
    with ENGINE.begin() as connection:
        connection.execute(sa.schema.CreateSchema("warehouse"))
        op = Operations(MigrationContext.configure(connection))
        op.create_table("shelf", sa.Column("id", sa.Integer, primary_key=True), sa.Column("label", sa.String(20)), schema="warehouse")
        op.create_table(
            "box", sa.Column("id", sa.Integer, primary_key=True), sa.Column("shelf_id", sa.Integer, nullable=False),
            sa.Column("content", sa.dialects.postgresql.JSONB, nullable=False), schema="warehouse")
        op.create_foreign_key("box_shelf", "box", "shelf", ["shelf_id"], ["id"], source_schema="warehouse", referent_schema="warehouse")
        op.alter_column("shelf", "label", type_=sa.String(40), nullable=False, schema="warehouse")
        op.create_unique_constraint("shelf_label_key", "shelf", ["label"], schema="warehouse")
        op.create_index("box_content", "box", ["content"], schema="warehouse", postgresql_using="gin")
        op.drop_index("box_content", "box", schema="warehouse")


@behaviour
def reflection_agrees():
    with ENGINE.connect() as connection:
        context = MigrationContext.configure(connection, opts={
            "include_schemas": True, "include_name": lambda name, kind, _: kind != "schema" or name == "warehouse"})
        same([d for d in compare_metadata(context, Base.metadata)], [])


@behaviour
def unit_of_work():
    with Session(ENGINE) as session:
        session.add_all([Shelf(label=f"shelf {n}", boxes=[Box(content={"n": m}) for m in range(5)]) for n in range(20)])
        session.commit()
        shelf = session.scalars(sa.select(Shelf).where(Shelf.label == "shelf 7")).one()
        same(sorted(box.content["n"] for box in shelf.boxes), [0, 1, 2, 3, 4])
        session.delete(shelf)
        session.commit()
        same(session.scalar(sa.select(sa.func.count()).select_from(Box)), 95)


@behaviour
def asynchronous_engine():
    async def go():
        engine = create_async_engine(URL.set(drivername="postgresql+asyncpg"),
                                     connect_args={"ssl": ssl.create_default_context(cafile=ROOTCERT)})
        async with engine.connect() as connection:
            rows = await connection.execute(sa.text("SELECT id FROM products WHERE id <= :n ORDER BY id"), {"n": 3})
            same([row.id for row in rows], [1, 2, 3])
        await engine.dispose()
    asyncio.run(go())


@policy
def masked_reflected_table():
    with ENGINE.connect() as connection:
        customers = sa.Table("customers", sa.MetaData(), autoload_with=connection)
        row = connection.execute(sa.select(customers).where(customers.c.id == 1)).one()
        masked(row.email, row.card_number)


@behaviour
def downgrade():
    with ENGINE.begin() as connection:
        op = Operations(MigrationContext.configure(connection))
        op.drop_table("box", schema="warehouse")
        op.drop_table("shelf", schema="warehouse")
        connection.execute(sa.schema.DropSchema("warehouse"))


run(lambda function: function())
