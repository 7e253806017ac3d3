//! Statements of a batch.

use super::names::{qualified, string};
use super::scope::{From, Scope, Taint, Why};
use super::{Analyzer, Candidates, CopyFlow};
use crate::ClassSet;
use pg_query::NodeEnum;
use pg_query::protobuf::{
    AlterObjectSchemaStmt, AlterTableCmd, AlterTableStmt, AlterTableType, CopyStmt, CreateTableAsStmt, Node, ObjectType,
    ParseResult, RangeVar, RenameStmt,
};
use std::sync::Arc;

/// Most prepared statements that run one another: `EXECUTE` of an `EXECUTE` is not possible in PostgreSQL, so
/// more than a few is something else.
const EXECUTE_DEPTH_MAX: u8 = 4;

impl<'a> Analyzer<'a> {
    pub(crate) fn batch(&mut self, tree: &'a ParseResult) {
        let (mut redefined, mut depends) = (false, false);
        for raw in &tree.stmts {
            let Some(statement) = raw.stmt.as_deref() else { continue };
            self.flows.redefines = false;
            self.flows.depends_on_catalog = false;
            self.statement(statement);
            if redefined && self.flows.depends_on_catalog {
                self.suspect(Why::ChangedBefore, "");
            }
            redefined |= self.flows.redefines;
            depends |= self.flows.depends_on_catalog;
        }
        self.flows.redefines = redefined;
        self.flows.depends_on_catalog = depends;
    }

    fn statement(&mut self, node: &'a Node) {
        let Some(statement) = &node.node else {
            self.suspect(Why::UnknownKind, "a statement");
            return;
        };
        self.flows.acts |= !matches!(
            statement,
            NodeEnum::SelectStmt(_)
                | NodeEnum::FetchStmt(_)
                | NodeEnum::ExecuteStmt(_)
                | NodeEnum::ExplainStmt(_)
                | NodeEnum::DeclareCursorStmt(_)
                | NodeEnum::PrepareStmt(_)
                | NodeEnum::CopyStmt(_)
                | NodeEnum::TransactionStmt(_)
                | NodeEnum::VariableShowStmt(_)
        );
        match statement {
            NodeEnum::SelectStmt(_)
            | NodeEnum::InsertStmt(_)
            | NodeEnum::UpdateStmt(_)
            | NodeEnum::DeleteStmt(_)
            | NodeEnum::MergeStmt(_) => self.rows(node),
            NodeEnum::DeclareCursorStmt(declare) => self.inner(declare.query.as_deref()),
            NodeEnum::PrepareStmt(prepare) => self.inner(prepare.query.as_deref()),
            NodeEnum::ExecuteStmt(execute) => {
                let nothing = From::default();
                // Parameters are values of the prepared statement: what they carry could be anywhere in its result.
                let parameters = self.exprs(&execute.params, &Scope { parent: None, ctes: &[], from: &nothing });
                if !parameters.is_clean() {
                    self.leak(parameters, Why::Expression);
                }
                self.stored(self.resolve.prepared(&execute.name), "prepared statement", &execute.name);
            }
            NodeEnum::FetchStmt(fetch) if fetch.ismove => {}
            NodeEnum::FetchStmt(fetch) => self.stored(self.resolve.cursor(&fetch.portalname), "cursor", &fetch.portalname),
            NodeEnum::ExplainStmt(explain) => self.explain(explain.query.as_deref()),
            NodeEnum::CreateTableAsStmt(create) => self.create_table_as(create),
            NodeEnum::CopyStmt(copy) => self.copy(copy),
            NodeEnum::CallStmt(call) => {
                let nothing = From::default();
                let scope = Scope { parent: None, ctes: &[], from: &nothing };
                match call.funccall.as_deref() {
                    Some(call) => self.procedure(call, &scope),
                    None => self.suspect(Why::UnknownKind, "CALL"),
                }
            }
            other => self.definition(other),
        }
    }

    /// A statement that returns rows.
    fn rows(&mut self, node: &'a Node) {
        let columns = self.query(node, None);
        if self.into {
            self.write_all(&columns, Why::Written);
            self.into = false;
        } else {
            self.returned(&columns);
        }
    }

    fn inner(&mut self, query: Option<&'a Node>) {
        match query {
            Some(query) => self.statement(query),
            None => self.suspect(Why::UnknownKind, "a statement"),
        }
    }

    /// EXPLAIN shows plans and constants; what the statement returns is thrown away, what it writes is not.
    fn explain(&mut self, query: Option<&'a Node>) {
        let Some(query) = query else { return };
        let before = std::mem::replace(&mut self.explaining, true);
        match &query.node {
            Some(
                NodeEnum::SelectStmt(_)
                | NodeEnum::InsertStmt(_)
                | NodeEnum::UpdateStmt(_)
                | NodeEnum::DeleteStmt(_)
                | NodeEnum::MergeStmt(_),
            ) => {
                let columns = self.query(query, None);
                if self.into {
                    self.write_all(&columns, Why::Written);
                    self.into = false;
                }
            }
            _ => self.statement(query),
        }
        self.explaining = before;
    }

    /// What was stored under a name: an EXECUTE or FETCH shows what it does.
    fn stored(&mut self, trees: Option<Vec<Arc<ParseResult>>>, kind: &str, name: &str) {
        let Some(trees) = trees.filter(|trees| !trees.is_empty() && self.depth < EXECUTE_DEPTH_MAX) else {
            self.suspect(Why::UnknownStored, format!("{kind} {name}"));
            return;
        };
        for tree in trees {
            let mut analyzer = Analyzer::new(self.plan, self.resolve);
            analyzer.depth = self.depth + 1;
            analyzer.explaining = self.explaining;
            analyzer.batch(&tree);
            self.flows.merge(analyzer.flows);
        }
    }

    fn create_table_as(&mut self, create: &'a CreateTableAsStmt) {
        let Some(query) = create.query.as_deref() else { return };
        if let Some(NodeEnum::ExecuteStmt(execute)) = &query.node {
            self.stored(self.resolve.prepared(&execute.name), "prepared statement", &execute.name);
            // Its columns have lost their origin in the new table.
            let copied = Taint { computed: self.flows.touched, why: Some(Why::Written), ..Taint::CLEAN };
            if !copied.is_clean() {
                self.leak(copied, Why::Written);
            }
            return;
        }
        let columns = self.query(query, None);
        self.into = false;
        self.write_all(&columns, Why::Written);
    }

    // ---- COPY ---------------------------------------------------------------------------------------

    fn copy(&mut self, copy: &'a CopyStmt) {
        let to_server = copy.is_program || !copy.filename.is_empty();
        if copy.is_from {
            self.flows.acts = true;
            let target = self.target(copy.relation.as_ref(), false);
            let from = target.into_from();
            self.filter(copy.where_clause.as_deref(), &Scope { parent: None, ctes: &[], from: &from });
            return;
        }
        if let Some(query) = copy.query.as_deref() {
            let columns = self.query(query, None);
            if to_server {
                self.write_all(&columns, Why::ServerFile);
            } else {
                self.returned(&columns);
                self.flows.copies.push(CopyFlow::Query);
            }
            return;
        }
        let Some(relation) = &copy.relation else {
            self.suspect(Why::UnknownKind, "COPY");
            return;
        };
        let candidates = self.candidates(relation);
        if candidates.unknown {
            self.suspect(Why::UnknownRelation, &relation.relname);
        }
        let columns = self.columns_of(&candidates);
        self.flows.quoted |= columns.all().classes();
        if to_server {
            self.write_all(&columns, Why::ServerFile);
        } else {
            let columns = Self::copied_columns(&copy.attlist);
            self.flows.copies.push(CopyFlow::Relation { candidates, columns });
        }
    }

    // ---- Definitions --------------------------------------------------------------------------------

    fn definition(&mut self, statement: &'a NodeEnum) {
        match statement {
            NodeEnum::ViewStmt(view) => {
                self.flows.redefines = true;
                if let Some(query) = view.query.as_deref() {
                    let columns = self.query(query, None);
                    self.write_all(&columns, Why::NewName);
                }
            }
            NodeEnum::CreateStmt(create) => self.create_table(create),
            NodeEnum::CreateSchemaStmt(schema) => {
                self.flows.redefines = true;
                schema.schema_elts.iter().for_each(|element| self.statement(element));
            }
            NodeEnum::CreateDomainStmt(domain) => {
                self.flows.redefines = true;
                domain.constraints.iter().for_each(|constraint| self.of_domain(constraint));
            }
            NodeEnum::AlterDomainStmt(domain) => {
                self.flows.redefines = true;
                domain.def.iter().for_each(|definition| self.of_domain(definition));
            }
            NodeEnum::CreatePolicyStmt(policy) => {
                self.row_policy(policy.table.as_ref(), [policy.qual.as_deref(), policy.with_check.as_deref()]);
            }
            NodeEnum::AlterPolicyStmt(policy) => {
                self.row_policy(policy.table.as_ref(), [policy.qual.as_deref(), policy.with_check.as_deref()]);
            }
            // What an operator or a cast calls is not looked at where it is used.
            NodeEnum::DefineStmt(define) if define.kind() == ObjectType::ObjectOperator => self.code("CREATE OPERATOR"),
            NodeEnum::CreateCastStmt(cast) if cast.func.is_some() => self.code("CREATE CAST"),
            NodeEnum::DoStmt(_) => self.suspect(Why::Code, "DO"),
            NodeEnum::CreateFunctionStmt(_) => self.code("CREATE FUNCTION"),
            NodeEnum::RuleStmt(_) => self.code("CREATE RULE"),
            NodeEnum::CreateTrigStmt(trigger) => {
                self.flows.redefines = true;
                if !self.classes_of(trigger.relation.as_ref()).is_empty() {
                    self.code("CREATE TRIGGER");
                }
            }
            NodeEnum::CreateEventTrigStmt(_) => self.code("CREATE EVENT TRIGGER"),
            NodeEnum::CreateForeignTableStmt(_) => self.other_way("CREATE FOREIGN TABLE"),
            NodeEnum::CreateForeignServerStmt(_) => self.other_way("CREATE SERVER"),
            NodeEnum::AlterForeignServerStmt(_) => self.other_way("ALTER SERVER"),
            NodeEnum::CreateUserMappingStmt(_) => self.other_way("CREATE USER MAPPING"),
            NodeEnum::AlterUserMappingStmt(_) => self.other_way("ALTER USER MAPPING"),
            NodeEnum::ImportForeignSchemaStmt(_) => self.other_way("IMPORT FOREIGN SCHEMA"),
            NodeEnum::CreateFdwStmt(_) => self.other_way("CREATE FOREIGN DATA WRAPPER"),
            NodeEnum::AlterFdwStmt(_) => self.other_way("ALTER FOREIGN DATA WRAPPER"),
            NodeEnum::CreateSubscriptionStmt(_) => self.other_way("CREATE SUBSCRIPTION"),
            NodeEnum::CreatePublicationStmt(_) => self.other_way("CREATE PUBLICATION"),
            NodeEnum::AlterPublicationStmt(_) => self.other_way("ALTER PUBLICATION"),
            NodeEnum::LoadStmt(_) => self.other_way("LOAD"),
            NodeEnum::CreatePlangStmt(_) => self.other_way("CREATE LANGUAGE"),
            NodeEnum::CreateTransformStmt(_) => self.other_way("CREATE TRANSFORM"),
            NodeEnum::CreateConversionStmt(_) => self.other_way("CREATE CONVERSION"),
            NodeEnum::RenameStmt(rename) => self.rename(rename),
            NodeEnum::AlterObjectSchemaStmt(alter) => self.move_to_schema(alter),
            NodeEnum::AlterTableStmt(alter) => self.alter_table(alter),
            NodeEnum::IndexStmt(index) => self.index(index),
            other => self.harmless(other),
        }
    }

    /// Statements that neither return nor copy anything of a table.
    fn harmless(&mut self, statement: &NodeEnum) {
        match statement {
            // What they name may mean something else afterwards.
            NodeEnum::DropStmt(_)
            | NodeEnum::DropOwnedStmt(_)
            | NodeEnum::DefineStmt(_)
            | NodeEnum::CreateCastStmt(_)
            | NodeEnum::CreateOpClassStmt(_)
            | NodeEnum::CreateOpFamilyStmt(_)
            | NodeEnum::AlterOpFamilyStmt(_)
            | NodeEnum::AlterOperatorStmt(_)
            | NodeEnum::AlterTypeStmt(_)
            | NodeEnum::AlterFunctionStmt(_)
            | NodeEnum::AlterExtensionStmt(_)
            | NodeEnum::AlterExtensionContentsStmt(_)
            | NodeEnum::CreateExtensionStmt(_)
            | NodeEnum::CompositeTypeStmt(_) => self.flows.redefines = true,
            NodeEnum::AlterCollationStmt(_)
            | NodeEnum::AlterDatabaseRefreshCollStmt(_)
            | NodeEnum::AlterDatabaseSetStmt(_)
            | NodeEnum::AlterDatabaseStmt(_)
            | NodeEnum::AlterDefaultPrivilegesStmt(_)
            | NodeEnum::AlterEnumStmt(_)
            | NodeEnum::AlterEventTrigStmt(_)
            | NodeEnum::AlterObjectDependsStmt(_)
            | NodeEnum::AlterOwnerStmt(_)
            | NodeEnum::AlterRoleSetStmt(_)
            | NodeEnum::AlterRoleStmt(_)
            | NodeEnum::AlterSeqStmt(_)
            | NodeEnum::AlterStatsStmt(_)
            | NodeEnum::AlterSubscriptionStmt(_)
            | NodeEnum::AlterSystemStmt(_)
            | NodeEnum::AlterTableMoveAllStmt(_)
            | NodeEnum::AlterTableSpaceOptionsStmt(_)
            | NodeEnum::AlterTsconfigurationStmt(_)
            | NodeEnum::AlterTsdictionaryStmt(_)
            | NodeEnum::CheckPointStmt(_)
            | NodeEnum::ClosePortalStmt(_)
            | NodeEnum::ClusterStmt(_)
            | NodeEnum::CommentStmt(_)
            | NodeEnum::ConstraintsSetStmt(_)
            | NodeEnum::CreateAmStmt(_)
            | NodeEnum::CreateEnumStmt(_)
            | NodeEnum::CreateRangeStmt(_)
            | NodeEnum::CreateRoleStmt(_)
            | NodeEnum::CreateSeqStmt(_)
            | NodeEnum::CreateStatsStmt(_)
            | NodeEnum::CreateTableSpaceStmt(_)
            | NodeEnum::CreatedbStmt(_)
            | NodeEnum::DeallocateStmt(_)
            | NodeEnum::DiscardStmt(_)
            | NodeEnum::DropRoleStmt(_)
            | NodeEnum::DropSubscriptionStmt(_)
            | NodeEnum::DropTableSpaceStmt(_)
            | NodeEnum::DropUserMappingStmt(_)
            | NodeEnum::DropdbStmt(_)
            | NodeEnum::GrantRoleStmt(_)
            | NodeEnum::GrantStmt(_)
            | NodeEnum::ListenStmt(_)
            | NodeEnum::LockStmt(_)
            | NodeEnum::NotifyStmt(_)
            | NodeEnum::ReassignOwnedStmt(_)
            | NodeEnum::RefreshMatViewStmt(_)
            | NodeEnum::ReindexStmt(_)
            | NodeEnum::SecLabelStmt(_)
            | NodeEnum::TransactionStmt(_)
            | NodeEnum::TruncateStmt(_)
            | NodeEnum::UnlistenStmt(_)
            | NodeEnum::VacuumStmt(_)
            | NodeEnum::VariableSetStmt(_)
            | NodeEnum::VariableShowStmt(_) => {}
            _ => self.suspect(Why::UnknownKind, "a statement"),
        }
    }

    /// Code that runs on the server; it could read anything, and change what names mean.
    fn code(&mut self, what: &str) {
        self.flows.redefines = true;
        self.suspect(Why::Code, what);
    }

    fn other_way(&mut self, what: &str) {
        self.flows.redefines = true;
        self.suspect(Why::OtherWay, what);
    }

    fn classes_of(&mut self, relation: Option<&RangeVar>) -> ClassSet {
        let Some(relation) = relation else { return ClassSet::EMPTY };
        let candidates = self.candidates(relation);
        candidates.known.iter().fold(ClassSet::EMPTY, |all, oid| all | self.plan.relation_classes(*oid))
    }

    /// Renaming what is classified by name would take its mask away.
    fn rename(&mut self, rename: &'a RenameStmt) {
        self.flows.redefines = true;
        let classes = match rename.rename_type() {
            ObjectType::ObjectSchema => self.plan.schema_classes(&rename.subname),
            ObjectType::ObjectFunction
            | ObjectType::ObjectProcedure
            | ObjectType::ObjectRoutine
            | ObjectType::ObjectAggregate => return self.code("ALTER FUNCTION … RENAME"),
            ObjectType::ObjectColumn | ObjectType::ObjectAttribute => {
                let candidates = rename.relation.as_ref().map(|relation| self.candidates(relation)).unwrap_or_default();
                self.column_classes(&candidates, &rename.subname)
            }
            _ => self.classes_of(rename.relation.as_ref()),
        };
        self.leak(Taint { computed: classes, ..Taint::CLEAN }, Why::NewName);
    }

    fn column_classes(&self, candidates: &Candidates, column: &str) -> ClassSet {
        candidates.known.iter().fold(ClassSet::EMPTY, |all, oid| all | self.plan.column_classes(*oid, column))
    }

    fn move_to_schema(&mut self, alter: &'a AlterObjectSchemaStmt) {
        self.flows.redefines = true;
        let classes = match alter.object_type() {
            // Everything that the extension owns moves along.
            ObjectType::ObjectExtension => ClassSet::EMPTY,
            ObjectType::ObjectFunction
            | ObjectType::ObjectProcedure
            | ObjectType::ObjectRoutine
            | ObjectType::ObjectAggregate => return self.code("ALTER FUNCTION … SET SCHEMA"),
            _ => self.classes_of(alter.relation.as_ref()),
        };
        self.leak(Taint { computed: classes, ..Taint::CLEAN }, Why::NewName);
    }

    fn alter_table(&mut self, alter: &'a AlterTableStmt) {
        self.flows.redefines = true;
        let target = self.target(alter.relation.as_ref(), false);
        for command in &alter.cmds {
            match &command.node {
                Some(NodeEnum::AlterTableCmd(command)) => self.alter_command(alter, command),
                _ => self.suspect(Why::UnknownKind, "ALTER TABLE"),
            }
        }
        self.altered(alter, &target);
        // ALTER COLUMN … TYPE … USING (expression) copies.
        let from = target.into_from();
        let scope = Scope { parent: None, ctes: &[], from: &from };
        for command in &alter.cmds {
            let Some(NodeEnum::AlterTableCmd(command)) = &command.node else { continue };
            if let Some(NodeEnum::ColumnDef(definition)) = command.def.as_deref().and_then(|def| def.node.as_ref())
                && command.subtype() == AlterTableType::AtAlterColumnType
                && let Some(expression) = definition.raw_default.as_deref()
            {
                let taint = self.expr(expression, &scope);
                let allowed = from.columns.list.iter().find(|column| column.name == Some(&*command.name));
                let allowed = allowed.map_or(ClassSet::EMPTY, |column| column.taint.direct);
                let beyond = Taint { direct: taint.direct.without(allowed), computed: taint.computed.without(allowed), ..taint };
                if !beyond.is_clean() {
                    self.leak(beyond, Why::Written);
                }
            }
        }
    }

    /// A partition that is detached, or a child that no longer inherits, keeps its rows and loses its class; a generated
    /// column that no longer is one keeps its values and loses where they came from.
    fn alter_command(&mut self, alter: &'a AlterTableStmt, command: &'a AlterTableCmd) {
        let classes = match command.subtype() {
            AlterTableType::AtDropInherit | AlterTableType::AtDropExpression => self.classes_of(alter.relation.as_ref()),
            AlterTableType::AtDetachPartition | AlterTableType::AtDetachPartitionFinalize => {
                let named = match command.def.as_deref().and_then(|def| def.node.as_ref()) {
                    Some(NodeEnum::PartitionCmd(part)) => part.name.as_ref(),
                    _ => None,
                };
                self.classes_of(named) | self.classes_of(alter.relation.as_ref())
            }
            AlterTableType::AtGenericOptions | AlterTableType::AtAlterColumnGenericOptions => {
                return self.other_way("ALTER FOREIGN TABLE … OPTIONS");
            }
            _ => ClassSet::EMPTY,
        };
        self.leak(Taint { computed: classes, ..Taint::CLEAN }, Why::NewName);
    }

    /// CALL: output parameters come back as a row.
    fn procedure(&mut self, call: &'a pg_query::protobuf::FuncCall, scope: &Scope<'_, 'a>) {
        self.flows.depends_on_catalog = true;
        let arguments = self.exprs(&call.args, scope);
        let safe = qualified(&call.funcname).is_some_and(|(schema, name)| self.plan.callee(schema, name) == super::Callee::Safe);
        if !safe {
            let name = call.funcname.iter().filter_map(string).collect::<Vec<_>>().join(".");
            self.suspect(Why::UnsafeFunction, name);
        }
        if !arguments.is_clean() {
            self.leak(arguments, Why::Kept);
        }
    }
}
