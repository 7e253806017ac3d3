//! One statement of a text, by its kind. Every kind of node is listed: one that is none of a statement, or that a
//! later version adds, is unknown.

use super::state::Effect;
use super::tree::{Fields, Visit};
use super::walk::{Meaning, NESTED_MAX, Walker, connection, database, shown, strings};
use pg_query::NodeEnum;
use pg_query::protobuf::{
    DeclareCursorStmt, DiscardMode, ExecuteStmt, ExplainStmt, FetchStmt, Node, ObjectType, ParseResult, PrepareStmt,
    RoleStmtType, RuleStmt, SelectStmt, SetOperation, TransactionStmtKind,
};
use std::sync::Arc;

impl Walker<'_> {
    /// Every statement of a text, in order.
    pub(super) fn tree(&mut self, tree: &ParseResult) {
        for raw in &tree.stmts {
            match &raw.stmt {
                Some(statement) => {
                    // COPY's query is cut from the text of its own statement alone.
                    let text = self.text;
                    self.text = text.and_then(|text| statement_text(text, raw.stmt_location, raw.stmt_len));
                    self.statement(statement);
                    self.text = text;
                }
                None => self.unexpected("an empty statement"),
            }
        }
    }

    /// A statement that is a part of another, such as what EXPLAIN explains.
    pub(super) fn statement_within(&mut self, node: &Node) {
        self.nested += 1;
        if self.nested > NESTED_MAX {
            self.unknown(format!("statements within statements, more than {NESTED_MAX} deep"));
        } else {
            self.statement(node);
        }
        self.nested -= 1;
    }

    pub(super) fn statement(&mut self, node: &Node) {
        let Some(node) = node.node.as_ref() else { return self.unexpected("an empty statement") };
        // By families, each of which says whether the statement was one of its own.
        let known =
            self.query(node) || self.session(node) || self.table_change(node) || self.other_change(node) || self.server(node);
        if !known {
            self.unexpected(node_name(node));
        }
    }

    /// Statements that read and write rows, or run others that do.
    fn query(&mut self, node: &NodeEnum) -> bool {
        match node {
            NodeEnum::SelectStmt(select) => {
                self.kind(select_kind(select));
                select.visit(self);
            }
            // Their kinds are added where they are visited, in CTEs as well.
            NodeEnum::InsertStmt(_) | NodeEnum::UpdateStmt(_) | NodeEnum::DeleteStmt(_) | NodeEnum::MergeStmt(_) => {
                node.visit(self)
            }
            NodeEnum::CopyStmt(copy) => self.copy(copy),
            NodeEnum::TruncateStmt(truncate) => {
                self.kind("TRUNCATE");
                self.meaning(Meaning::Act("truncate"), |walker| truncate.relations.visit(walker));
            }
            NodeEnum::LockStmt(lock) => {
                self.kind("LOCK");
                self.meaning(Meaning::Act("lock"), |walker| lock.relations.visit(walker));
            }
            NodeEnum::CallStmt(call) => {
                self.kind("CALL");
                call.visit(self);
            }
            NodeEnum::DoStmt(block) => {
                self.kind("DO");
                self.code_block(&block.args);
            }
            NodeEnum::ExplainStmt(explain) => self.explain(explain),
            NodeEnum::DeclareCursorStmt(declare) => self.declare(declare),
            NodeEnum::FetchStmt(fetch) => self.fetch(fetch),
            NodeEnum::PrepareStmt(prepare) => self.prepare(prepare),
            NodeEnum::ExecuteStmt(execute) => self.execute(execute),
            _ => return false,
        }
        true
    }

    /// Statements about the session and its transactions.
    fn session(&mut self, node: &NodeEnum) -> bool {
        match node {
            NodeEnum::TransactionStmt(statement) => self.kind(transaction_kind(statement.kind)),
            NodeEnum::VariableSetStmt(set) => {
                self.kind("SET");
                self.variable_set(set);
            }
            NodeEnum::VariableShowStmt(_) => self.kind("SHOW"),
            NodeEnum::ConstraintsSetStmt(_) => self.kind("SET CONSTRAINTS"),
            NodeEnum::DeallocateStmt(_) => self.kind("DEALLOCATE"),
            NodeEnum::ClosePortalStmt(_) => self.kind("CLOSE"),
            NodeEnum::DiscardStmt(discard) => match DiscardMode::try_from(discard.target) {
                Ok(
                    DiscardMode::DiscardAll
                    | DiscardMode::DiscardPlans
                    | DiscardMode::DiscardSequences
                    | DiscardMode::DiscardTemp,
                ) => {
                    self.kind("DISCARD");
                }
                Ok(DiscardMode::Undefined) | Err(_) => self.unexpected("DISCARD"),
            },
            NodeEnum::ListenStmt(_) => {
                self.kind("LISTEN");
                self.act("listen", database(), None);
            }
            NodeEnum::UnlistenStmt(_) => self.kind("UNLISTEN"),
            NodeEnum::NotifyStmt(_) => {
                self.kind("NOTIFY");
                self.act("notify", database(), None);
            }
            _ => return false,
        }
        true
    }

    /// Statements that change relations.
    fn table_change(&mut self, node: &NodeEnum) -> bool {
        match node {
            NodeEnum::CreateStmt(create) => {
                self.kind("CREATE TABLE");
                self.create_table(create);
            }
            NodeEnum::CreateForeignTableStmt(create) => {
                self.kind("CREATE FOREIGN TABLE");
                match &create.base_stmt {
                    Some(base) => self.create_table(base),
                    None => self.unexpected("CREATE FOREIGN TABLE"),
                }
            }
            NodeEnum::CreateTableAsStmt(create) => self.create_table_as(create),
            NodeEnum::ViewStmt(view) => {
                self.kind("CREATE VIEW");
                self.view(view);
            }
            NodeEnum::CreateSeqStmt(create) => {
                self.kind("CREATE SEQUENCE");
                self.creates_named(create.sequence.as_ref());
                create.options.visit(self);
            }
            NodeEnum::AlterTableStmt(alter) => {
                self.kind("ALTER TABLE");
                self.alter_table(alter);
            }
            NodeEnum::AlterSeqStmt(alter) => {
                self.kind("ALTER SEQUENCE");
                self.changes(|walker| alter.visit(walker));
            }
            NodeEnum::IndexStmt(index) => {
                self.kind("CREATE INDEX");
                self.index(index);
            }
            NodeEnum::CreateStatsStmt(create) => {
                self.kind("CREATE STATISTICS");
                self.meaning(Meaning::Act("ddl"), |walker| create.visit_fields(walker));
            }
            NodeEnum::CreateTrigStmt(create) => {
                self.kind("CREATE TRIGGER");
                self.changes(|walker| create.visit_fields(walker));
            }
            NodeEnum::CreatePolicyStmt(create) => {
                self.kind("CREATE POLICY");
                self.changes(|walker| create.visit_fields(walker));
            }
            NodeEnum::AlterPolicyStmt(alter) => {
                self.kind("ALTER POLICY");
                self.changes(|walker| alter.visit_fields(walker));
            }
            NodeEnum::RuleStmt(rule) => self.rule(rule),
            NodeEnum::DropStmt(drop) => {
                self.kind("DROP");
                self.drop(drop);
            }
            NodeEnum::RenameStmt(rename) => {
                self.kind("ALTER RENAME");
                self.rename(rename);
            }
            NodeEnum::AlterObjectSchemaStmt(alter) => {
                self.kind("ALTER SET SCHEMA");
                self.alter_object(alter.object_type, alter.relation.as_ref(), alter.object.as_deref(), true);
            }
            NodeEnum::AlterOwnerStmt(alter) => {
                self.kind("ALTER OWNER");
                self.alter_object(alter.object_type, alter.relation.as_ref(), alter.object.as_deref(), false);
            }
            NodeEnum::AlterObjectDependsStmt(alter) => {
                self.kind("ALTER DEPENDS");
                self.alter_object(alter.object_type, alter.relation.as_ref(), alter.object.as_deref(), false);
            }
            NodeEnum::CommentStmt(comment) => {
                self.kind("COMMENT");
                match &comment.object {
                    Some(object) => self.object(comment.objtype, object, "ddl"),
                    None => self.unexpected("COMMENT"),
                }
            }
            NodeEnum::SecLabelStmt(label) => {
                self.kind("SECURITY LABEL");
                match &label.object {
                    Some(object) => self.object(label.objtype, object, "ddl"),
                    None => self.unexpected("SECURITY LABEL"),
                }
            }
            _ => return false,
        }
        true
    }

    /// Statements that change functions, types and what else a database has.
    fn other_change(&mut self, node: &NodeEnum) -> bool {
        match node {
            NodeEnum::CreateSchemaStmt(create) => {
                self.kind("CREATE SCHEMA");
                self.create_schema(create);
            }
            NodeEnum::CreateFunctionStmt(create) => {
                // What its body does is asked when it is called: that is `call`.
                self.kind(if create.is_procedure { "CREATE PROCEDURE" } else { "CREATE FUNCTION" });
                self.makes_function(&strings(&create.funcname));
                self.meaning(Meaning::Act("ddl"), |walker| create.parameters.visit(walker));
            }
            NodeEnum::AlterFunctionStmt(alter) => {
                self.kind("ALTER FUNCTION");
                self.alter_function(alter.func.as_ref());
            }
            NodeEnum::DefineStmt(define) => {
                self.kind("CREATE");
                if define.kind == ObjectType::ObjectAggregate as i32 {
                    self.makes_function(&strings(&define.defnames));
                } else {
                    self.defines(&define.defnames);
                }
                self.meaning(Meaning::Act("ddl"), |walker| {
                    define.args.visit(walker);
                    define.definition.visit(walker);
                });
            }
            NodeEnum::CompositeTypeStmt(create) => {
                self.kind("CREATE TYPE");
                self.creates_named(create.typevar.as_ref());
                self.meaning(Meaning::Act("ddl"), |walker| create.coldeflist.visit(walker));
            }
            NodeEnum::CreateEnumStmt(create) => self.definition("CREATE TYPE", &create.type_name, node),
            NodeEnum::CreateRangeStmt(create) => self.definition("CREATE TYPE", &create.type_name, node),
            NodeEnum::AlterEnumStmt(alter) => self.definition("ALTER TYPE", &alter.type_name, node),
            NodeEnum::AlterTypeStmt(alter) => self.definition("ALTER TYPE", &alter.type_name, node),
            NodeEnum::CreateDomainStmt(create) => self.definition("CREATE DOMAIN", &create.domainname, node),
            NodeEnum::AlterDomainStmt(alter) => self.definition("ALTER DOMAIN", &alter.type_name, node),
            NodeEnum::AlterStatsStmt(alter) => self.definition("ALTER STATISTICS", &alter.defnames, node),
            NodeEnum::AlterCollationStmt(alter) => self.definition("ALTER COLLATION", &alter.collname, node),
            NodeEnum::AlterOperatorStmt(alter) => {
                let name = alter.opername.as_ref().map(|operator| operator.objname.as_slice());
                self.definition("ALTER OPERATOR", name.unwrap_or_default(), node);
            }
            NodeEnum::CreateOpClassStmt(create) => self.definition("CREATE OPERATOR CLASS", &create.opclassname, node),
            NodeEnum::CreateOpFamilyStmt(create) => self.definition("CREATE OPERATOR FAMILY", &create.opfamilyname, node),
            NodeEnum::AlterOpFamilyStmt(alter) => self.definition("ALTER OPERATOR FAMILY", &alter.opfamilyname, node),
            NodeEnum::CreateConversionStmt(create) => self.definition("CREATE CONVERSION", &create.conversion_name, node),
            NodeEnum::AlterTsdictionaryStmt(alter) => self.definition("ALTER TEXT SEARCH DICTIONARY", &alter.dictname, node),
            NodeEnum::AlterTsconfigurationStmt(alter) => {
                self.definition("ALTER TEXT SEARCH CONFIGURATION", &alter.cfgname, node);
            }
            NodeEnum::CreateCastStmt(_) => self.definition("CREATE CAST", &[], node),
            NodeEnum::CreateTransformStmt(_) => self.definition("CREATE TRANSFORM", &[], node),
            NodeEnum::CreateExtensionStmt(_) => self.definition("CREATE EXTENSION", &[], node),
            NodeEnum::AlterExtensionStmt(_) => self.definition("ALTER EXTENSION", &[], node),
            NodeEnum::AlterExtensionContentsStmt(alter) => {
                self.kind("ALTER EXTENSION");
                self.found.changes_catalog = true;
                self.act("ddl", database(), None);
                if let Some(object) = &alter.object {
                    self.object(alter.objtype, object, "ddl");
                }
            }
            NodeEnum::CreateFdwStmt(_) => self.definition("CREATE FOREIGN DATA WRAPPER", &[], node),
            NodeEnum::AlterFdwStmt(_) => self.definition("ALTER FOREIGN DATA WRAPPER", &[], node),
            NodeEnum::CreateForeignServerStmt(_) => self.definition("CREATE SERVER", &[], node),
            NodeEnum::AlterForeignServerStmt(_) => self.definition("ALTER SERVER", &[], node),
            NodeEnum::CreateUserMappingStmt(_) => self.definition("CREATE USER MAPPING", &[], node),
            NodeEnum::AlterUserMappingStmt(_) => self.definition("ALTER USER MAPPING", &[], node),
            NodeEnum::DropUserMappingStmt(_) => self.definition("DROP USER MAPPING", &[], node),
            NodeEnum::ImportForeignSchemaStmt(_) => self.definition("IMPORT FOREIGN SCHEMA", &[], node),
            NodeEnum::CreateAmStmt(_) => self.definition("CREATE ACCESS METHOD", &[], node),
            NodeEnum::CreatePlangStmt(_) => self.definition("CREATE LANGUAGE", &[], node),
            NodeEnum::CreateEventTrigStmt(_) => self.definition("CREATE EVENT TRIGGER", &[], node),
            NodeEnum::AlterEventTrigStmt(_) => self.definition("ALTER EVENT TRIGGER", &[], node),
            _ => return false,
        }
        true
    }

    /// `ddl` on the schema of these names (none: on the database), and on every relation in the statement.
    fn definition(&mut self, kind: &str, names: &[Node], node: &NodeEnum) {
        self.kind(kind);
        self.defines(names);
        self.changes(|walker| node.visit(walker));
    }

    /// Statements about roles, privileges, replication, upkeep and the server.
    fn server(&mut self, node: &NodeEnum) -> bool {
        match node {
            NodeEnum::GrantStmt(grant) => {
                self.kind(if grant.is_grant { "GRANT" } else { "REVOKE" });
                self.grant(grant);
            }
            NodeEnum::GrantRoleStmt(grant) => self.on_server(if grant.is_grant { "GRANT" } else { "REVOKE" }, "grant"),
            NodeEnum::AlterDefaultPrivilegesStmt(_) => {
                self.kind("ALTER DEFAULT PRIVILEGES");
                self.act("grant", database(), None);
            }
            NodeEnum::CreateRoleStmt(create) => {
                let role = create.stmt_type == RoleStmtType::RolestmtRole as i32;
                self.on_server(if role { "CREATE ROLE" } else { "CREATE USER" }, "grant");
            }
            NodeEnum::AlterRoleStmt(_) | NodeEnum::AlterRoleSetStmt(_) => self.on_server("ALTER ROLE", "grant"),
            NodeEnum::DropRoleStmt(_) => self.on_server("DROP ROLE", "grant"),
            NodeEnum::DropOwnedStmt(_) | NodeEnum::ReassignOwnedStmt(_) => {
                self.on_server("REASSIGN OR DROP OWNED", "grant");
                self.act("ddl", database(), None);
            }
            NodeEnum::CreatedbStmt(_) => self.on_server("CREATE DATABASE", "ddl"),
            NodeEnum::DropdbStmt(_) => self.on_server("DROP DATABASE", "ddl"),
            NodeEnum::AlterDatabaseStmt(_) | NodeEnum::AlterDatabaseSetStmt(_) | NodeEnum::AlterDatabaseRefreshCollStmt(_) => {
                self.on_server("ALTER DATABASE", "ddl");
            }
            NodeEnum::CreateTableSpaceStmt(_) => self.on_server("CREATE TABLESPACE", "ddl"),
            NodeEnum::DropTableSpaceStmt(_) => self.on_server("DROP TABLESPACE", "ddl"),
            NodeEnum::AlterTableSpaceOptionsStmt(_) => self.on_server("ALTER TABLESPACE", "ddl"),
            NodeEnum::AlterTableMoveAllStmt(_) => self.on_server("ALTER TABLE ALL", "ddl"),
            NodeEnum::CreatePublicationStmt(_) => self.replication("CREATE PUBLICATION", node),
            NodeEnum::AlterPublicationStmt(_) => self.replication("ALTER PUBLICATION", node),
            NodeEnum::CreateSubscriptionStmt(_) => self.replication("CREATE SUBSCRIPTION", node),
            NodeEnum::AlterSubscriptionStmt(_) => self.replication("ALTER SUBSCRIPTION", node),
            NodeEnum::DropSubscriptionStmt(_) => self.replication("DROP SUBSCRIPTION", node),
            NodeEnum::VacuumStmt(vacuum) => {
                self.kind(if vacuum.is_vacuumcmd { "VACUUM" } else { "ANALYZE" });
                self.maintains(vacuum.rels.is_empty(), |walker| {
                    vacuum.options.visit(walker);
                    vacuum.rels.visit(walker);
                });
            }
            NodeEnum::ClusterStmt(cluster) => {
                self.kind("CLUSTER");
                self.maintains(cluster.relation.is_none(), |walker| cluster.visit_fields(walker));
            }
            NodeEnum::RefreshMatViewStmt(refresh) => {
                self.kind("REFRESH MATERIALIZED VIEW");
                self.maintains(refresh.relation.is_none(), |walker| refresh.visit_fields(walker));
            }
            NodeEnum::ReindexStmt(reindex) => {
                self.kind("REINDEX");
                self.reindex(reindex);
            }
            NodeEnum::CheckPointStmt(_) => self.on_server("CHECKPOINT", "maintain"),
            NodeEnum::AlterSystemStmt(_) => {
                self.on_server("ALTER SYSTEM", "set");
                self.unknown("ALTER SYSTEM changes the server's configuration");
            }
            NodeEnum::LoadStmt(_) => {
                self.kind("LOAD");
                self.unknown("LOAD loads code into the server");
            }
            _ => return false,
        }
        true
    }

    fn on_server(&mut self, kind: &str, action: &str) {
        self.kind(kind);
        self.found.changes_catalog |= action != "maintain";
        self.act(action, connection(), None);
    }

    fn maintains(&mut self, everything: bool, visit: impl FnOnce(&mut Self)) {
        if everything {
            self.act("maintain", database(), None);
        }
        self.meaning(Meaning::Act("maintain"), visit);
    }

    /// What it makes shows tables' rows to whoever may replicate.
    fn replication(&mut self, kind: &str, node: &NodeEnum) {
        self.act("replicate", database(), None);
        self.definition(kind, &[], node);
    }

    fn rule(&mut self, rule: &RuleStmt) {
        let RuleStmt { relation, rulename: _, where_clause, event: _, instead: _, actions, replace: _ } = rule;
        self.kind("CREATE RULE");
        self.found.changes_catalog = true;
        match relation {
            Some(relation) => {
                self.relation(relation, "ddl", None);
            }
            None => self.unexpected("CREATE RULE"),
        }
        self.meaning(Meaning::Read, |walker| where_clause.visit(walker));
        // They run with the rights of the table's owner, whenever somebody uses it.
        for action in actions {
            self.statement_within(action);
        }
    }

    /// EXPLAIN, whether it runs the statement (ANALYZE) or only plans it: planning calls functions, too.
    fn explain(&mut self, explain: &ExplainStmt) {
        self.kind("EXPLAIN");
        explain.options.visit(self);
        match &explain.query {
            Some(query) => self.statement_within(query),
            None => self.unexpected("EXPLAIN"),
        }
    }

    fn declare(&mut self, declare: &DeclareCursorStmt) {
        self.kind("DECLARE");
        match &declare.query {
            Some(query) => {
                let inner = self.inner(query);
                self.effect(Effect::DeclaresCursor(declare.portalname.clone(), Arc::new(inner)));
            }
            None => self.unexpected("DECLARE"),
        }
    }

    fn fetch(&mut self, fetch: &FetchStmt) {
        self.kind(if fetch.ismove { "MOVE" } else { "FETCH" });
        self.found.depends_on_statements = true;
        self.found.depends_on_state = true;
        match self.state.cursor(&fetch.portalname) {
            // What names meant when it was declared is what it reads.
            Some(declared) => {
                for analysis in declared {
                    self.absorb(&analysis);
                }
            }
            None => self.unknown(format!("cursor \"{}\" is not known to the gateway", shown(&fetch.portalname))),
        }
    }

    fn prepare(&mut self, prepare: &PrepareStmt) {
        self.kind("PREPARE");
        prepare.argtypes.visit(self);
        match &prepare.query {
            Some(query) => {
                let inner = self.inner(query);
                self.effect(Effect::Prepares(prepare.name.clone(), Arc::new(inner)));
            }
            None => self.unexpected("PREPARE"),
        }
    }

    fn execute(&mut self, execute: &ExecuteStmt) {
        self.kind("EXECUTE");
        self.found.depends_on_statements = true;
        self.found.depends_on_state = true;
        execute.params.visit(self);
        let Some(prepared) = self.state.prepared(&execute.name) else {
            return self.unknown(format!("prepared statement \"{}\" is not known to the gateway", shown(&execute.name)));
        };
        for analysis in prepared {
            match &analysis.tree {
                // The server looks names up again if the search path has changed.
                Some(tree) => {
                    self.inner_tree(tree);
                }
                None => self.absorb(&analysis),
            }
            if self.found.copy.is_none() {
                self.found.copy = analysis.copy.clone();
            }
        }
    }
}

/// A statement's part of the text.
fn statement_text(text: &str, location: i32, length: i32) -> Option<&str> {
    let start = usize::try_from(location).ok()?;
    match usize::try_from(length).ok()? {
        0 => text.get(start..),
        length => text.get(start..start.checked_add(length)?),
    }
}

fn select_kind(select: &SelectStmt) -> &'static str {
    let plain = select.op == SetOperation::SetopNone as i32;
    match (plain && !select.values_lists.is_empty(), select.into_clause.is_some()) {
        (true, _) => "VALUES",
        (false, true) => "SELECT INTO",
        (false, false) => "SELECT",
    }
}

fn transaction_kind(kind: i32) -> &'static str {
    use TransactionStmtKind as K;
    match K::try_from(kind) {
        Ok(K::TransStmtBegin) => "BEGIN",
        Ok(K::TransStmtStart) => "START TRANSACTION",
        Ok(K::TransStmtCommit) => "COMMIT",
        Ok(K::TransStmtRollback) => "ROLLBACK",
        Ok(K::TransStmtSavepoint) => "SAVEPOINT",
        Ok(K::TransStmtRelease) => "RELEASE",
        Ok(K::TransStmtRollbackTo) => "ROLLBACK TO",
        Ok(K::TransStmtPrepare) => "PREPARE TRANSACTION",
        Ok(K::TransStmtCommitPrepared) => "COMMIT PREPARED",
        Ok(K::TransStmtRollbackPrepared) => "ROLLBACK PREPARED",
        Ok(K::Undefined) | Err(_) => "TRANSACTION",
    }
}

/// A name for what is not known: the kind of node, without what is in it.
fn node_name(node: &NodeEnum) -> &'static str {
    match node {
        NodeEnum::RawStmt(_) => "RawStmt",
        NodeEnum::ReturnStmt(_) => "RETURN",
        NodeEnum::PlassignStmt(_) => "an assignment",
        NodeEnum::Query(_) => "Query",
        _ => "a statement",
    }
}
