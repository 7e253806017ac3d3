//! Statements that change what there is and who may use it: on which objects.

use super::resolve::{is_system_schema, is_temp_schema};
use super::state::Effect;
use super::tree::{Fields, Visit};
use super::walk::{Meaning, Walker, connection, database, qualified, string, strings};
use pg_query::NodeEnum;
use pg_query::protobuf::{
    AlterTableStmt, CreateSchemaStmt, CreateStmt, CreateTableAsStmt, DropStmt, GrantStmt, IndexStmt, IntoClause, Node,
    ObjectType, ObjectWithArgs, RangeVar, ReindexObjectType, ReindexStmt, RenameStmt, ViewStmt,
};
use proxy_core::{Object, ObjectKind};

/// What sort of thing an object's name is the name of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// A relation of the catalogue.
    Relation,
    /// Something of a relation: its names, and one more.
    PartOfRelation,
    /// A function, procedure or aggregate.
    Function,
    /// Something in a schema that policies have no kind for: the schema stands for it.
    InSchema,
    /// A schema.
    Schema,
    /// Something of the database.
    Database,
    /// Something of the whole server.
    Server,
}

fn sort(object_type: i32) -> Sort {
    use ObjectType as T;
    match T::try_from(object_type) {
        Ok(T::ObjectTable | T::ObjectView | T::ObjectMatview | T::ObjectForeignTable | T::ObjectSequence) => Sort::Relation,
        Ok(T::ObjectColumn | T::ObjectTabconstraint | T::ObjectTrigger | T::ObjectRule | T::ObjectPolicy | T::ObjectDefault) => {
            Sort::PartOfRelation
        }
        Ok(T::ObjectFunction | T::ObjectProcedure | T::ObjectRoutine | T::ObjectAggregate) => Sort::Function,
        Ok(
            T::ObjectIndex
            | T::ObjectType
            | T::ObjectDomain
            | T::ObjectDomconstraint
            | T::ObjectAttribute
            | T::ObjectCollation
            | T::ObjectConversion
            | T::ObjectOpclass
            | T::ObjectOpfamily
            | T::ObjectOperator
            | T::ObjectStatisticExt
            | T::ObjectTsconfiguration
            | T::ObjectTsdictionary
            | T::ObjectTsparser
            | T::ObjectTstemplate,
        ) => Sort::InSchema,
        Ok(T::ObjectSchema) => Sort::Schema,
        Ok(T::ObjectDatabase | T::ObjectRole | T::ObjectTablespace | T::ObjectParameterAcl) => Sort::Server,
        Ok(
            T::Undefined
            | T::ObjectAccessMethod
            | T::ObjectAmop
            | T::ObjectAmproc
            | T::ObjectCast
            | T::ObjectDefacl
            | T::ObjectEventTrigger
            | T::ObjectExtension
            | T::ObjectFdw
            | T::ObjectForeignServer
            | T::ObjectLanguage
            | T::ObjectLargeobject
            | T::ObjectPublication
            | T::ObjectPublicationNamespace
            | T::ObjectPublicationRel
            | T::ObjectSubscription
            | T::ObjectTransform
            | T::ObjectUserMapping,
        )
        | Err(_) => Sort::Database,
    }
}

/// The names by which an object is given.
fn names(object: &Node) -> Vec<&str> {
    match object.node.as_ref() {
        Some(NodeEnum::List(list)) => strings(&list.items),
        Some(NodeEnum::TypeName(name)) => strings(&name.names),
        Some(NodeEnum::ObjectWithArgs(object)) => strings(&object.objname),
        Some(NodeEnum::String(name)) => vec![&name.sval],
        _ => Vec::new(),
    }
}

impl Walker<'_> {
    /// `action` on the object that a statement names; relations that it carries along are visited by the caller.
    pub(super) fn object(&mut self, object_type: i32, object: &Node, action: &'static str) {
        let names = names(object);
        match sort(object_type) {
            Sort::Relation => match qualified(&names) {
                Some((schema, name)) => {
                    self.named_relation(schema, name, action, None);
                }
                None => self.relation_node(object, action),
            },
            Sort::PartOfRelation => match names.split_last().and_then(|(_, rest)| qualified(rest)) {
                Some((schema, name)) => {
                    self.named_relation(schema, name, action, None);
                }
                None => self.act(action, database(), None),
            },
            Sort::Function => self.function_object(&names, action),
            Sort::InSchema if names.is_empty() => self.act(action, database(), None),
            Sort::InSchema => self.in_schema(&names, action),
            Sort::Schema => match names.as_slice() {
                [schema] => self.act(action, Object::new(ObjectKind::Schema, [*schema]), None),
                _ => self.act(action, database(), None),
            },
            Sort::Database => self.act(action, database(), None),
            Sort::Server => self.act(action, connection(), None),
        }
    }

    fn relation_node(&mut self, object: &Node, action: &'static str) {
        match object.node.as_ref() {
            Some(NodeEnum::RangeVar(var)) => {
                self.relation(var, action, None);
            }
            _ => self.act(action, database(), None),
        }
    }

    /// `action` on every function that these names may be.
    pub(super) fn function_object(&mut self, names: &[&str], action: &str) {
        let Some((schema, name)) = qualified(names) else { return self.act(action, database(), None) };
        self.found.depends_on_state = true;
        let mut schemas: Vec<String> = match schema {
            Some(schema) => vec![schema.to_owned()],
            None => {
                let known = self.catalog.into_iter().flat_map(|catalog| catalog.functions_named(name));
                known.map(|function| function.schema.clone()).collect()
            }
        };
        if schemas.is_empty() {
            match self.state.creation_schema(self.catalog) {
                Some(schema) => schemas.push(schema),
                None => return self.act(action, database(), None),
            }
        }
        for schema in schemas {
            self.act(action, Object::new(ObjectKind::Function, [schema.as_str(), name]), None);
        }
    }

    /// A function, procedure, aggregate is made, or gets this name.
    pub(super) fn makes_function(&mut self, names: &[&str]) {
        self.found.changes_catalog = true;
        let Some((schema, name)) = qualified(names) else { return self.act("ddl", database(), None) };
        let schema = match schema {
            Some(schema) => Some(schema.to_owned()),
            None => {
                self.found.depends_on_state = true;
                self.state.creation_schema(self.catalog)
            }
        };
        match &schema {
            Some(schema) => self.act("ddl", Object::new(ObjectKind::Function, [schema.as_str(), name]), None),
            None => self.act("ddl", database(), None),
        }
        let schema = schema.unwrap_or_else(|| "public".to_owned());
        self.effect(Effect::MakesFunction { schema, name: name.to_owned() });
    }

    /// `ddl` on whatever relations are in a statement, on its object, and on what its parts call.
    pub(super) fn changes(&mut self, visit: impl FnOnce(&mut Self)) {
        self.found.changes_catalog = true;
        self.meaning(Meaning::Act("ddl"), visit);
    }

    pub(super) fn create_table(&mut self, create: &CreateStmt) {
        let CreateStmt {
            relation,
            table_elts,
            inh_relations,
            partbound,
            partspec,
            of_typename,
            constraints,
            nnconstraints,
            options,
            oncommit: _,
            tablespacename: _,
            access_method: _,
            if_not_exists: _,
        } = create;
        self.creates_named(relation.as_ref());
        self.meaning(Meaning::Act("ddl"), |walker| {
            for nodes in [table_elts, inh_relations, constraints, nnconstraints, options] {
                nodes.visit(walker);
            }
            partbound.visit(walker);
            partspec.visit(walker);
            of_typename.visit(walker);
        });
    }

    pub(super) fn creates_named(&mut self, relation: Option<&RangeVar>) {
        match relation {
            Some(relation) => self.creates(relation),
            None => self.unexpected("CREATE"),
        }
    }

    /// The target of SELECT INTO and CREATE TABLE AS.
    pub(super) fn into(&mut self, into: &IntoClause) {
        let IntoClause { rel, col_names, access_method: _, options, on_commit: _, table_space_name: _, view_query, skip_data: _ } =
            into;
        self.creates_named(rel.as_ref());
        col_names.visit(self);
        options.visit(self);
        view_query.visit(self);
    }

    pub(super) fn create_table_as(&mut self, create: &CreateTableAsStmt) {
        let materialized = sort(create.objtype) == Sort::Relation && create.objtype == ObjectType::ObjectMatview as i32;
        self.kind(if materialized { "CREATE MATERIALIZED VIEW" } else { "CREATE TABLE AS" });
        match &create.query {
            Some(query) => self.statement_within(query),
            None => self.unexpected("CREATE TABLE AS"),
        }
        match &create.into {
            Some(into) => self.into(into),
            None => self.unexpected("CREATE TABLE AS"),
        }
    }

    pub(super) fn view(&mut self, view: &ViewStmt) {
        let ViewStmt { view: relation, aliases, query, replace: _, options, with_check_option: _ } = view;
        match query {
            Some(query) => self.statement_within(query),
            None => self.unexpected("CREATE VIEW"),
        }
        self.creates_named(relation.as_ref());
        aliases.visit(self);
        options.visit(self);
    }

    pub(super) fn create_schema(&mut self, create: &CreateSchemaStmt) {
        let CreateSchemaStmt { schemaname, authrole, schema_elts, if_not_exists: _ } = create;
        self.found.changes_catalog = true;
        match (schemaname.as_str(), authrole) {
            ("", _) => self.act("ddl", database(), None),
            (schema, _) => self.act("ddl", Object::new(ObjectKind::Schema, [schema]), None),
        }
        if !schema_elts.is_empty() {
            // Names in them are looked up in the new schema first.
            self.unknown(
                "CREATE SCHEMA with what is to be in it: make the schema first, and the rest by statements of their own",
            );
        }
        for element in schema_elts {
            self.statement_within(element);
        }
    }

    pub(super) fn alter_table(&mut self, alter: &AlterTableStmt) {
        let AlterTableStmt { relation, cmds, objtype, missing_ok: _ } = alter;
        self.changes(|walker| {
            match (relation, sort(*objtype)) {
                (Some(relation), Sort::Relation) => relation.visit(walker),
                // An index, a composite type: not in the catalogue by itself.
                (Some(relation), _) => walker.range_in_schema(relation),
                (None, _) => walker.unexpected("ALTER TABLE"),
            }
            cmds.visit(walker);
        });
    }

    /// `ddl` on the schema of something that is named like a relation.
    fn range_in_schema(&mut self, var: &RangeVar) {
        let names: Vec<&str> =
            [var.schemaname.as_str(), var.relname.as_str()].into_iter().filter(|name| !name.is_empty()).collect();
        self.in_schema(&names, "ddl");
    }

    pub(super) fn index(&mut self, index: &IndexStmt) {
        self.meaning(Meaning::Act("ddl"), |walker| index.visit_fields(walker));
    }

    pub(super) fn drop(&mut self, drop: &DropStmt) {
        self.found.changes_catalog = true;
        for object in &drop.objects {
            self.object(drop.remove_type, object, "ddl");
        }
    }

    pub(super) fn rename(&mut self, rename: &RenameStmt) {
        let RenameStmt { rename_type, relation_type, relation, object, subname, newname, behavior: _, missing_ok: _ } = rename;
        self.found.changes_catalog = true;
        match (relation, object) {
            (Some(relation), _) => {
                let by_itself = sort(*rename_type) == Sort::Relation;
                let in_catalog = by_itself || sort(*relation_type) == Sort::Relation;
                if !in_catalog || *rename_type == ObjectType::ObjectIndex as i32 {
                    // ALTER TABLE renames an index as well; then it is no relation that anything reads.
                    return self.range_in_schema(relation);
                }
                let uses = self.relation(relation, "ddl", None);
                if by_itself {
                    self.effect(Effect::Renames { name: newname.clone(), uses });
                }
            }
            (None, Some(object)) => {
                self.object(*rename_type, object, "ddl");
                if sort(*rename_type) == Sort::Function {
                    let schema = qualified(&names(object)).and_then(|(schema, _)| schema).unwrap_or("public").to_owned();
                    self.effect(Effect::MakesFunction { schema, name: newname.clone() });
                }
            }
            (None, None) if sort(*rename_type) == Sort::Schema => {
                self.act("ddl", Object::new(ObjectKind::Schema, [subname.as_str()]), None);
                self.effect(Effect::RenamesSchema { from: subname.clone(), to: newname.clone() });
            }
            (None, None) => match sort(*rename_type) {
                Sort::Server => self.act("ddl", connection(), None),
                _ => self.act("ddl", database(), None),
            },
        }
    }

    /// ALTER … SET SCHEMA, OWNER TO, DEPENDS ON: `moved` if the name means something else afterwards.
    pub(super) fn alter_object(&mut self, object_type: i32, relation: Option<&RangeVar>, object: Option<&Node>, moved: bool) {
        self.found.changes_catalog = true;
        match (relation, object) {
            (Some(relation), _) if sort(object_type) == Sort::Relation || sort(object_type) == Sort::PartOfRelation => {
                let uses = self.relation(relation, "ddl", None);
                if moved {
                    self.effect(Effect::Renames { name: relation.relname.clone(), uses });
                }
            }
            (Some(relation), _) => self.range_in_schema(relation),
            (None, Some(object)) => {
                self.object(object_type, object, "ddl");
                let names = names(object);
                match sort(object_type) {
                    Sort::Function if moved => {
                        if let Some((_, name)) = qualified(&names) {
                            self.effect(Effect::MakesFunction { schema: "public".to_owned(), name: name.to_owned() });
                        }
                    }
                    _ => {}
                }
            }
            (None, None) => self.act("ddl", database(), None),
        }
    }

    pub(super) fn grant(&mut self, grant: &GrantStmt) {
        self.found.changes_catalog = true;
        if grant.objects.is_empty() {
            self.act("grant", database(), None);
        }
        // GRANT … ON ALL TABLES IN SCHEMA: the objects are schemas.
        let all = grant.targtype == pg_query::protobuf::GrantTargetType::AclTargetAllInSchema as i32;
        let object_type = if all { ObjectType::ObjectSchema as i32 } else { grant.objtype };
        for object in &grant.objects {
            self.object(object_type, object, "grant");
        }
    }

    pub(super) fn reindex(&mut self, reindex: &ReindexStmt) {
        let ReindexStmt { kind, relation, name, params } = reindex;
        params.visit(self);
        match (ReindexObjectType::try_from(*kind), relation) {
            (Ok(ReindexObjectType::ReindexObjectTable), Some(relation)) => {
                self.relation(relation, "maintain", None);
            }
            (Ok(ReindexObjectType::ReindexObjectIndex), Some(relation)) => {
                let names: Vec<&str> = [relation.schemaname.as_str(), relation.relname.as_str()]
                    .into_iter()
                    .filter(|name| !name.is_empty())
                    .collect();
                self.in_schema(&names, "maintain");
            }
            (Ok(ReindexObjectType::ReindexObjectSchema), _) => {
                self.act("maintain", Object::new(ObjectKind::Schema, [name.as_str()]), None);
            }
            _ => self.act("maintain", database(), None),
        }
    }

    /// What a statement makes that policies have no kind for: the schema stands for it.
    pub(super) fn defines(&mut self, names: &[Node]) {
        self.found.changes_catalog = true;
        let names = strings(names);
        match qualified(&names) {
            Some((Some(schema), _)) if is_system_schema(schema) || is_temp_schema(schema) => self.act("ddl", database(), None),
            Some(_) => self.in_schema(&names, "ddl"),
            None => self.act("ddl", database(), None),
        }
    }

    pub(super) fn alter_function(&mut self, function: Option<&ObjectWithArgs>) {
        self.found.changes_catalog = true;
        match function {
            Some(function) => self.function_object(&strings(&function.objname), "ddl"),
            None => self.unexpected("ALTER FUNCTION"),
        }
    }

    /// The text of a single name among options, as in `… LANGUAGE plpgsql`.
    pub(super) fn option<'n>(options: &'n [Node], wanted: &str) -> Option<&'n str> {
        options.iter().find_map(|node| match node.node.as_ref()? {
            NodeEnum::DefElem(option) if option.defname == wanted => string(option.arg.as_deref()?),
            _ => None,
        })
    }
}
