"""Django: migrations forwards and backwards, then the ORM's own statements, through psycopg 3."""

import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")

import django
from django.conf import settings
from suite import *

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": HOST, "PORT": PORT, "USER": USER, "PASSWORD": PASSWORD, "NAME": DB,
            "OPTIONS": {"sslmode": "verify-full", "sslrootcert": ROOTCERT},
        }
    },
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    SECRET_KEY="for tests alone",
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import connection, models, transaction


class Customer(models.Model):
    """The shop's table, as it is."""
    name = models.TextField()
    email = models.TextField()
    card_number = models.TextField(null=True)

    class Meta:
        app_label = "shop"
        managed = False
        db_table = "customers"


@behaviour
def migrate_forwards():
    call_command("migrate", verbosity=0)
    assert "auth_user" in connection.introspection.table_names()


@behaviour
def migrate_again_changes_nothing():
    call_command("migrate", verbosity=0, check_unapplied=True)


@behaviour
def create_read_update_delete():
    group = Group.objects.create(name="staff")
    user = User.objects.create_user("carol", "carol@example.com", "secret")
    user.groups.add(group)
    User.objects.bulk_create([User(username=f"user{n}") for n in range(200)])
    same(User.objects.filter(groups__name="staff").get().username, "carol")
    User.objects.filter(username="carol").update(first_name="Carol")
    same(User.objects.values_list("first_name", flat=True).get(username="carol"), "Carol")
    same(User.objects.filter(username__startswith="user").delete()[0], 200)


@behaviour
def atomic_blocks():
    try:
        with transaction.atomic():
            Group.objects.create(name="gone")
            with transaction.atomic():
                Group.objects.create(name="gone too")
            raise ValueError
    except ValueError:
        pass
    same(Group.objects.filter(name__startswith="gone").count(), 0)


@behaviour
def iterates_with_a_server_side_cursor():
    with transaction.atomic():
        same(sum(1 for _ in Customer.objects.only("id").iterator(chunk_size=100)), Customer.objects.count())


@policy
def masked_model():
    customer = Customer.objects.get(pk=1)
    same(customer.name, NAME)
    masked(customer.email, customer.card_number)


@behaviour
def migrate_backwards():
    call_command("migrate", "sessions", "zero", verbosity=0)
    call_command("migrate", "auth", "zero", verbosity=0)
    call_command("migrate", "contenttypes", "zero", verbosity=0)
    assert "auth_user" not in connection.introspection.table_names()
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE django_migrations")


run(lambda function: function())
