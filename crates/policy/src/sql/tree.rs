//! Every node kind of the grammar, with all its fields.
//!
//! The lists below are checked by the compiler: a node kind or a field that a later version of the grammar adds
//! does not compile until somebody has said what it means.

use super::walk::Walker;
use pg_query::NodeEnum;
use pg_query::protobuf::*;

/// What a walk does with a node.
pub(super) trait Visit {
    fn visit(&self, walker: &mut Walker<'_>);
}

/// The insides of a node, in the order of its fields.
pub(super) trait Fields {
    fn visit_fields(&self, walker: &mut Walker<'_>);
}

impl<T: Visit> Visit for Option<T> {
    fn visit(&self, walker: &mut Walker<'_>) {
        if let Some(inner) = self {
            inner.visit(walker);
        }
    }
}

impl<T: Visit> Visit for Box<T> {
    fn visit(&self, walker: &mut Walker<'_>) {
        (**self).visit(walker);
    }
}

impl<T: Visit> Visit for Vec<T> {
    fn visit(&self, walker: &mut Walker<'_>) {
        for inner in self {
            inner.visit(walker);
        }
    }
}

impl Visit for Node {
    fn visit(&self, walker: &mut Walker<'_>) {
        self.node.visit(walker);
    }
}

/// Values in which nothing can be.
macro_rules! values {
    ($($value:ty)*) => { $(impl Visit for $value {
        fn visit(&self, _: &mut Walker<'_>) {}
    })* };
}

values! { bool i32 i64 u32 u64 f64 std::string::String a_const::Val }

macro_rules! fields {
    ($($node:ident { $($field:ident),* };)*) => { $(impl Fields for $node {
        fn visit_fields(&self, #[allow(unused_variables, reason = "nodes without fields")] walker: &mut Walker<'_>) {
            let Self { $($field),* } = self;
            $($field.visit(walker);)*
        }
    })* };
}

macro_rules! plain {
    ($($node:ident)*) => { $(impl Visit for $node {
        fn visit(&self, walker: &mut Walker<'_>) {
            self.visit_fields(walker);
        }
    })* };
}

macro_rules! foreign {
    ($($node:ident)*) => { $(impl Visit for $node {
        fn visit(&self, walker: &mut Walker<'_>) {
            walker.unexpected(stringify!($node));
        }
    })* };
}

fields! {
    Alias { aliasname, colnames };
    RangeVar { catalogname, schemaname, relname, inh, relpersistence, alias, location };
    IntoClause { rel, col_names, access_method, options, on_commit, table_space_name, view_query, skip_data };
    GroupingFunc { xpr, args, refs, agglevelsup, location };
    MergeSupportFunc { xpr, msftype, msfcollid, location };
    NamedArgExpr { xpr, arg, name, argnumber, location };
    BoolExpr { xpr, boolop, args, location };
    SubLink { xpr, sub_link_type, sub_link_id, testexpr, oper_name, subselect, location };
    CaseExpr { xpr, casetype, casecollid, arg, args, defresult, location };
    CaseWhen { xpr, expr, result, location };
    RowExpr { xpr, args, row_typeid, row_format, colnames, location };
    CoalesceExpr { xpr, coalescetype, coalescecollid, args, location };
    MinMaxExpr { xpr, minmaxtype, minmaxcollid, inputcollid, op, args, location };
    SqlValueFunction { xpr, op, r#type, typmod, location };
    XmlExpr { xpr, op, name, named_args, arg_names, args, xmloption, indent, r#type, typmod, location };
    JsonFormat { format_type, encoding, location };
    JsonReturning { format, typid, typmod };
    JsonValueExpr { raw_expr, formatted_expr, format };
    JsonIsPredicate { expr, format, item_type, unique_keys, location };
    JsonBehavior { btype, expr, coerce, location };
    NullTest { xpr, arg, nulltesttype, argisrow, location };
    BooleanTest { xpr, arg, booltesttype, location };
    SetToDefault { xpr, type_id, type_mod, collation, location };
    CurrentOfExpr { xpr, cvarno, cursor_name, cursor_param };
    JoinExpr { jointype, is_natural, larg, rarg, using_clause, join_using_alias, quals, alias, rtindex };
    TypeName { names, type_oid, setof, pct_type, typmods, typemod, array_bounds, location };
    ColumnRef { fields, location };
    ParamRef { number, location };
    AExpr { kind, name, lexpr, rexpr, rexpr_list_start, rexpr_list_end, location };
    TypeCast { arg, type_name, location };
    CollateClause { arg, collname, location };
    RoleSpec { roletype, rolename, location };
    FuncCall {
        funcname, args, agg_order, agg_filter, over, agg_within_group, agg_star, agg_distinct, func_variadic, funcformat,
        location
    };
    AStar {};
    AIndices { is_slice, lidx, uidx };
    AIndirection { arg, indirection };
    AArrayExpr { elements, list_start, list_end, location };
    ResTarget { name, indirection, val, location };
    MultiAssignRef { source, colno, ncolumns };
    SortBy { node, sortby_dir, sortby_nulls, use_op, location };
    WindowDef { name, refname, partition_clause, order_clause, frame_options, start_offset, end_offset, location };
    RangeSubselect { lateral, subquery, alias };
    RangeFunction { lateral, ordinality, is_rowsfrom, functions, alias, coldeflist };
    RangeTableFunc { lateral, docexpr, rowexpr, namespaces, columns, alias, location };
    RangeTableFuncCol { colname, type_name, for_ordinality, is_not_null, colexpr, coldefexpr, location };
    RangeTableSample { relation, method, args, repeatable, location };
    ColumnDef {
        colname, type_name, compression, inhcount, is_local, is_not_null, is_from_type, storage, storage_name, raw_default,
        cooked_default, identity, identity_sequence, generated, coll_clause, coll_oid, constraints, fdwoptions, location
    };
    TableLikeClause { relation, options, relation_oid };
    IndexElem { name, expr, indexcolname, collation, opclass, opclassopts, ordering, nulls_ordering };
    DefElem { defnamespace, defname, arg, defaction, location, arg_location };
    LockingClause { locked_rels, strength, wait_policy };
    XmlSerialize { xmloption, expr, type_name, indent, location };
    PartitionElem { name, expr, collation, opclass, location };
    PartitionSpec { strategy, part_params, location };
    PartitionBoundSpec { strategy, is_default, modulus, remainder, listdatums, lowerdatums, upperdatums, location };
    PartitionRangeDatum { kind, value, location };
    PartitionCmd { name, bound, concurrent };
    GroupingSet { kind, content, location };
    WithClause { ctes, recursive, location };
    InferClause { index_elems, where_clause, conname, location };
    OnConflictClause { action, infer, target_list, where_clause, location };
    CteSearchClause { search_col_list, search_breadth_first, search_seq_column, location };
    CteCycleClause {
        cycle_col_list, cycle_mark_column, cycle_mark_value, cycle_mark_default, cycle_path_column, location,
        cycle_mark_type, cycle_mark_typmod, cycle_mark_collation, cycle_mark_neop
    };
    CommonTableExpr {
        ctename, aliascolnames, ctematerialized, ctequery, search_clause, cycle_clause, location, cterecursive, cterefcount,
        ctecolnames, ctecoltypes, ctecoltypmods, ctecolcollations
    };
    MergeWhenClause { match_kind, command_type, r#override, condition, target_list, values };
    ReturningOption { option, value, location };
    ReturningClause { options, exprs };
    TriggerTransition { name, is_new, is_table };
    JsonOutput { type_name, returning };
    JsonArgument { val, name };
    JsonFuncExpr { op, column_name, context_item, pathspec, passing, output, on_empty, on_error, wrapper, quotes, location };
    JsonTablePathSpec { string, name, name_location, location };
    JsonTable { context_item, pathspec, passing, columns, on_error, alias, lateral, location };
    JsonTableColumn { coltype, name, type_name, pathspec, format, wrapper, quotes, columns, on_empty, on_error, location };
    JsonKeyValue { key, value };
    JsonParseExpr { expr, output, unique_keys, location };
    JsonScalarExpr { expr, output, location };
    JsonSerializeExpr { expr, output, location };
    JsonObjectConstructor { exprs, output, absent_on_null, unique, location };
    JsonArrayConstructor { exprs, output, absent_on_null, location };
    JsonArrayQueryConstructor { query, output, format, absent_on_null, location };
    JsonAggConstructor { output, agg_filter, agg_order, over, location };
    JsonObjectAgg { constructor, arg, absent_on_null, unique };
    JsonArrayAgg { constructor, arg, absent_on_null };
    RawStmt { stmt, stmt_location, stmt_len };
    InsertStmt { relation, cols, select_stmt, on_conflict_clause, returning_clause, with_clause, r#override };
    DeleteStmt { relation, using_clause, where_clause, returning_clause, with_clause };
    UpdateStmt { relation, target_list, where_clause, from_clause, returning_clause, with_clause };
    MergeStmt { relation, source_relation, join_condition, merge_when_clauses, returning_clause, with_clause };
    SelectStmt {
        distinct_clause, into_clause, target_list, from_clause, where_clause, group_clause, group_distinct, having_clause,
        window_clause, values_lists, sort_clause, limit_offset, limit_count, limit_option, locking_clause, with_clause, op,
        all, larg, rarg
    };
    ReturnStmt { returnval };
    PlAssignStmt { name, indirection, nnames, val, location };
    CreateSchemaStmt { schemaname, authrole, schema_elts, if_not_exists };
    AlterTableStmt { relation, cmds, objtype, missing_ok };
    AlterTableCmd { subtype, name, num, newowner, def, behavior, missing_ok, recurse };
    AtAlterConstraint {
        conname, alter_enforceability, is_enforced, alter_deferrability, deferrable, initdeferred, alter_inheritability,
        noinherit
    };
    ReplicaIdentityStmt { identity_type, name };
    AlterCollationStmt { collname };
    AlterDomainStmt { subtype, type_name, name, def, behavior, missing_ok };
    GrantStmt { is_grant, targtype, objtype, objects, privileges, grantees, grant_option, grantor, behavior };
    ObjectWithArgs { objname, objargs, objfuncargs, args_unspecified };
    AccessPriv { priv_name, cols };
    GrantRoleStmt { granted_roles, grantee_roles, is_grant, opt, grantor, behavior };
    AlterDefaultPrivilegesStmt { options, action };
    CopyStmt { relation, query, attlist, is_from, is_program, filename, options, where_clause };
    VariableSetStmt { kind, name, args, jumble_args, is_local, location };
    VariableShowStmt { name };
    CreateStmt {
        relation, table_elts, inh_relations, partbound, partspec, of_typename, constraints, nnconstraints, options, oncommit,
        tablespacename, access_method, if_not_exists
    };
    Constraint {
        contype, conname, deferrable, initdeferred, is_enforced, skip_validation, initially_valid, is_no_inherit, raw_expr,
        cooked_expr, generated_when, generated_kind, nulls_not_distinct, keys, without_overlaps, including, exclusions,
        options, indexname, indexspace, reset_default_tblspc, access_method, where_clause, pktable, fk_attrs, pk_attrs,
        fk_with_period, pk_with_period, fk_matchtype, fk_upd_action, fk_del_action, fk_del_set_cols, old_conpfeqop,
        old_pktable_oid, location
    };
    CreateTableSpaceStmt { tablespacename, owner, location, options };
    DropTableSpaceStmt { tablespacename, missing_ok };
    AlterTableSpaceOptionsStmt { tablespacename, options, is_reset };
    AlterTableMoveAllStmt { orig_tablespacename, objtype, roles, new_tablespacename, nowait };
    CreateExtensionStmt { extname, if_not_exists, options };
    AlterExtensionStmt { extname, options };
    AlterExtensionContentsStmt { extname, action, objtype, object };
    CreateFdwStmt { fdwname, func_options, options };
    AlterFdwStmt { fdwname, func_options, options };
    CreateForeignServerStmt { servername, servertype, version, fdwname, if_not_exists, options };
    AlterForeignServerStmt { servername, version, options, has_version };
    CreateForeignTableStmt { base_stmt, servername, options };
    CreateUserMappingStmt { user, servername, if_not_exists, options };
    AlterUserMappingStmt { user, servername, options };
    DropUserMappingStmt { user, servername, missing_ok };
    ImportForeignSchemaStmt { server_name, remote_schema, local_schema, list_type, table_list, options };
    CreatePolicyStmt { policy_name, table, cmd_name, permissive, roles, qual, with_check };
    AlterPolicyStmt { policy_name, table, roles, qual, with_check };
    CreateAmStmt { amname, handler_name, amtype };
    CreateTrigStmt {
        replace, isconstraint, trigname, relation, funcname, args, row, timing, events, columns, when_clause,
        transition_rels, deferrable, initdeferred, constrrel
    };
    CreateEventTrigStmt { trigname, eventname, whenclause, funcname };
    AlterEventTrigStmt { trigname, tgenabled };
    CreatePLangStmt { replace, plname, plhandler, plinline, plvalidator, pltrusted };
    CreateRoleStmt { stmt_type, role, options };
    AlterRoleStmt { role, options, action };
    AlterRoleSetStmt { role, database, setstmt };
    DropRoleStmt { roles, missing_ok };
    CreateSeqStmt { sequence, options, owner_id, for_identity, if_not_exists };
    AlterSeqStmt { sequence, options, for_identity, missing_ok };
    DefineStmt { kind, oldstyle, defnames, args, definition, if_not_exists, replace };
    CreateDomainStmt { domainname, type_name, coll_clause, constraints };
    CreateOpClassStmt { opclassname, opfamilyname, amname, datatype, items, is_default };
    CreateOpClassItem { itemtype, name, number, order_family, class_args, storedtype };
    CreateOpFamilyStmt { opfamilyname, amname };
    AlterOpFamilyStmt { opfamilyname, amname, is_drop, items };
    DropStmt { objects, remove_type, behavior, missing_ok, concurrent };
    TruncateStmt { relations, restart_seqs, behavior };
    CommentStmt { objtype, object, comment };
    SecLabelStmt { objtype, object, provider, label };
    DeclareCursorStmt { portalname, options, query };
    ClosePortalStmt { portalname };
    FetchStmt { direction, how_many, portalname, ismove };
    IndexStmt {
        idxname, relation, access_method, table_space, index_params, index_including_params, options, where_clause,
        exclude_op_names, idxcomment, index_oid, old_number, old_create_subid, old_first_relfilelocator_subid, unique,
        nulls_not_distinct, primary, isconstraint, iswithoutoverlaps, deferrable, initdeferred, transformed, concurrent,
        if_not_exists, reset_default_tblspc
    };
    CreateStatsStmt { defnames, stat_types, exprs, relations, stxcomment, transformed, if_not_exists };
    StatsElem { name, expr };
    AlterStatsStmt { defnames, stxstattarget, missing_ok };
    CreateFunctionStmt { is_procedure, replace, funcname, parameters, return_type, options, sql_body };
    FunctionParameter { name, arg_type, mode, defexpr, location };
    AlterFunctionStmt { objtype, func, actions };
    DoStmt { args };
    CallStmt { funccall, funcexpr, outargs };
    RenameStmt { rename_type, relation_type, relation, object, subname, newname, behavior, missing_ok };
    AlterObjectDependsStmt { object_type, relation, object, extname, remove };
    AlterObjectSchemaStmt { object_type, relation, object, newschema, missing_ok };
    AlterOwnerStmt { object_type, relation, object, newowner };
    AlterOperatorStmt { opername, options };
    AlterTypeStmt { type_name, options };
    RuleStmt { relation, rulename, where_clause, event, instead, actions, replace };
    NotifyStmt { conditionname, payload, payload_location };
    ListenStmt { conditionname };
    UnlistenStmt { conditionname };
    TransactionStmt { kind, options, savepoint_name, gid, chain, location };
    CompositeTypeStmt { typevar, coldeflist };
    CreateEnumStmt { type_name, vals };
    CreateRangeStmt { type_name, params };
    AlterEnumStmt { type_name, old_val, new_val, new_val_neighbor, new_val_is_after, skip_if_new_val_exists };
    ViewStmt { view, aliases, query, replace, options, with_check_option };
    LoadStmt { filename };
    CreatedbStmt { dbname, options };
    AlterDatabaseStmt { dbname, options };
    AlterDatabaseRefreshCollStmt { dbname };
    AlterDatabaseSetStmt { dbname, setstmt };
    DropdbStmt { dbname, missing_ok, options };
    AlterSystemStmt { setstmt };
    ClusterStmt { relation, indexname, params };
    VacuumStmt { options, rels, is_vacuumcmd };
    VacuumRelation { relation, oid, va_cols };
    ExplainStmt { query, options };
    CreateTableAsStmt { query, into, objtype, is_select_into, if_not_exists };
    RefreshMatViewStmt { concurrent, skip_data, relation };
    CheckPointStmt {};
    DiscardStmt { target };
    LockStmt { relations, mode, nowait };
    ConstraintsSetStmt { constraints, deferred };
    ReindexStmt { kind, relation, name, params };
    CreateConversionStmt { conversion_name, for_encoding_name, to_encoding_name, func_name, def };
    CreateCastStmt { sourcetype, targettype, func, context, inout };
    CreateTransformStmt { replace, type_name, lang, fromsql, tosql };
    PrepareStmt { name, argtypes, query };
    ExecuteStmt { name, params };
    DeallocateStmt { name, isall, location };
    DropOwnedStmt { roles, behavior };
    ReassignOwnedStmt { roles, newrole };
    AlterTsDictionaryStmt { dictname, options };
    AlterTsConfigurationStmt { kind, cfgname, tokentype, dicts, r#override, replace, missing_ok };
    PublicationTable { relation, where_clause, columns };
    PublicationObjSpec { pubobjtype, name, pubtable, location };
    CreatePublicationStmt { pubname, options, pubobjects, for_all_tables };
    AlterPublicationStmt { pubname, options, pubobjects, for_all_tables, action };
    CreateSubscriptionStmt { subname, conninfo, publication, options, conninfo_location };
    AlterSubscriptionStmt { kind, subname, conninfo, publication, options, conninfo_location };
    DropSubscriptionStmt { subname, missing_ok, behavior };
    Integer { ival };
    Float { fval };
    Boolean { boolval };
    String { sval };
    BitString { bsval };
    List { items };
    IntList { items };
    OidList { items };
    AConst { isnull, location, val };
}

// Nodes that mean nothing by themselves: only what is inside counts.
plain! {
    IntoClause GroupingFunc MergeSupportFunc NamedArgExpr BoolExpr CaseExpr CaseWhen RowExpr CoalesceExpr MinMaxExpr
    SqlValueFunction XmlExpr JsonFormat JsonReturning JsonValueExpr JsonIsPredicate JsonBehavior NullTest BooleanTest
    SetToDefault CurrentOfExpr JoinExpr TypeName ParamRef TypeCast CollateClause RoleSpec AStar AIndices AArrayExpr ResTarget
    MultiAssignRef WindowDef RangeSubselect RangeFunction RangeTableFunc RangeTableFuncCol ColumnDef TableLikeClause
    IndexElem DefElem XmlSerialize PartitionElem PartitionSpec PartitionBoundSpec PartitionRangeDatum PartitionCmd
    GroupingSet WithClause InferClause OnConflictClause CteSearchClause CteCycleClause CommonTableExpr MergeWhenClause
    ReturningOption ReturningClause TriggerTransition JsonOutput JsonArgument JsonFuncExpr JsonTablePathSpec JsonTable
    JsonTableColumn JsonKeyValue JsonParseExpr JsonScalarExpr JsonSerializeExpr JsonObjectConstructor JsonArrayConstructor
    JsonArrayQueryConstructor JsonAggConstructor JsonObjectAgg JsonArrayAgg RawStmt ReturnStmt PlAssignStmt CreateSchemaStmt
    AlterTableStmt AlterTableCmd AtAlterConstraint ReplicaIdentityStmt AlterCollationStmt AlterDomainStmt GrantStmt
    ObjectWithArgs AccessPriv GrantRoleStmt AlterDefaultPrivilegesStmt CopyStmt VariableSetStmt VariableShowStmt CreateStmt
    Constraint CreateTableSpaceStmt DropTableSpaceStmt AlterTableSpaceOptionsStmt AlterTableMoveAllStmt CreateExtensionStmt
    AlterExtensionStmt AlterExtensionContentsStmt CreateFdwStmt AlterFdwStmt CreateForeignServerStmt AlterForeignServerStmt
    CreateForeignTableStmt CreateUserMappingStmt AlterUserMappingStmt DropUserMappingStmt ImportForeignSchemaStmt
    CreatePolicyStmt AlterPolicyStmt CreateAmStmt CreateTrigStmt CreateEventTrigStmt AlterEventTrigStmt CreatePLangStmt
    CreateRoleStmt AlterRoleStmt AlterRoleSetStmt DropRoleStmt CreateSeqStmt AlterSeqStmt DefineStmt CreateDomainStmt
    CreateOpClassStmt CreateOpClassItem CreateOpFamilyStmt AlterOpFamilyStmt DropStmt TruncateStmt CommentStmt SecLabelStmt
    DeclareCursorStmt ClosePortalStmt FetchStmt IndexStmt CreateStatsStmt StatsElem AlterStatsStmt CreateFunctionStmt
    FunctionParameter AlterFunctionStmt DoStmt CallStmt RenameStmt AlterObjectDependsStmt AlterObjectSchemaStmt
    AlterOwnerStmt AlterOperatorStmt AlterTypeStmt RuleStmt NotifyStmt ListenStmt UnlistenStmt TransactionStmt
    CompositeTypeStmt CreateEnumStmt CreateRangeStmt AlterEnumStmt ViewStmt LoadStmt CreatedbStmt AlterDatabaseStmt
    AlterDatabaseRefreshCollStmt AlterDatabaseSetStmt DropdbStmt AlterSystemStmt ClusterStmt VacuumStmt VacuumRelation
    ExplainStmt CreateTableAsStmt RefreshMatViewStmt CheckPointStmt DiscardStmt LockStmt ConstraintsSetStmt ReindexStmt
    CreateConversionStmt CreateCastStmt CreateTransformStmt PrepareStmt ExecuteStmt DeallocateStmt DropOwnedStmt
    ReassignOwnedStmt AlterTsDictionaryStmt AlterTsConfigurationStmt PublicationTable PublicationObjSpec
    CreatePublicationStmt AlterPublicationStmt CreateSubscriptionStmt AlterSubscriptionStmt DropSubscriptionStmt Integer
    Float Boolean String BitString List IntList OidList AConst
}

// Nodes that the grammar does not make: the server's analyser or planner does. They are never passed over.
foreign! {
    Aggref AlternativeSubPlan ArrayCoerceExpr ArrayExpr CallContext CaseTestExpr CoerceToDomain CoerceToDomainValue
    CoerceViaIo CollateExpr ConvertRowtypeExpr DistinctExpr FieldSelect FieldStore FromExpr FuncExpr InferenceElem
    InlineCodeBlock JsonConstructorExpr JsonExpr JsonTablePath JsonTablePathScan JsonTableSiblingJoin MergeAction
    NextValueExpr NullIfExpr OnConflictExpr OpExpr Param Query RangeTblEntry RangeTblFunction RangeTblRef RelabelType
    ReturningExpr RowCompareExpr RowMarkClause RtePermissionInfo ScalarArrayOpExpr SetOperationStmt SortGroupClause SubPlan
    SubscriptingRef TableFunc TableSampleClause TargetEntry Var WindowClause WindowFunc WindowFuncRunCondition
    WithCheckOption
}

impl Visit for NodeEnum {
    fn visit(&self, walker: &mut Walker<'_>) {
        match self {
            Self::Alias(node) => node.visit(walker),
            Self::RangeVar(node) => node.visit(walker),
            Self::TableFunc(node) => node.visit(walker),
            Self::IntoClause(node) => node.visit(walker),
            Self::Var(node) => node.visit(walker),
            Self::Param(node) => node.visit(walker),
            Self::Aggref(node) => node.visit(walker),
            Self::GroupingFunc(node) => node.visit(walker),
            Self::WindowFunc(node) => node.visit(walker),
            Self::WindowFuncRunCondition(node) => node.visit(walker),
            Self::MergeSupportFunc(node) => node.visit(walker),
            Self::SubscriptingRef(node) => node.visit(walker),
            Self::FuncExpr(node) => node.visit(walker),
            Self::NamedArgExpr(node) => node.visit(walker),
            Self::OpExpr(node) => node.visit(walker),
            Self::DistinctExpr(node) => node.visit(walker),
            Self::NullIfExpr(node) => node.visit(walker),
            Self::ScalarArrayOpExpr(node) => node.visit(walker),
            Self::BoolExpr(node) => node.visit(walker),
            Self::SubLink(node) => node.visit(walker),
            Self::SubPlan(node) => node.visit(walker),
            Self::AlternativeSubPlan(node) => node.visit(walker),
            Self::FieldSelect(node) => node.visit(walker),
            Self::FieldStore(node) => node.visit(walker),
            Self::RelabelType(node) => node.visit(walker),
            Self::CoerceViaIo(node) => node.visit(walker),
            Self::ArrayCoerceExpr(node) => node.visit(walker),
            Self::ConvertRowtypeExpr(node) => node.visit(walker),
            Self::CollateExpr(node) => node.visit(walker),
            Self::CaseExpr(node) => node.visit(walker),
            Self::CaseWhen(node) => node.visit(walker),
            Self::CaseTestExpr(node) => node.visit(walker),
            Self::ArrayExpr(node) => node.visit(walker),
            Self::RowExpr(node) => node.visit(walker),
            Self::RowCompareExpr(node) => node.visit(walker),
            Self::CoalesceExpr(node) => node.visit(walker),
            Self::MinMaxExpr(node) => node.visit(walker),
            Self::SqlvalueFunction(node) => node.visit(walker),
            Self::XmlExpr(node) => node.visit(walker),
            Self::JsonFormat(node) => node.visit(walker),
            Self::JsonReturning(node) => node.visit(walker),
            Self::JsonValueExpr(node) => node.visit(walker),
            Self::JsonConstructorExpr(node) => node.visit(walker),
            Self::JsonIsPredicate(node) => node.visit(walker),
            Self::JsonBehavior(node) => node.visit(walker),
            Self::JsonExpr(node) => node.visit(walker),
            Self::JsonTablePath(node) => node.visit(walker),
            Self::JsonTablePathScan(node) => node.visit(walker),
            Self::JsonTableSiblingJoin(node) => node.visit(walker),
            Self::NullTest(node) => node.visit(walker),
            Self::BooleanTest(node) => node.visit(walker),
            Self::MergeAction(node) => node.visit(walker),
            Self::CoerceToDomain(node) => node.visit(walker),
            Self::CoerceToDomainValue(node) => node.visit(walker),
            Self::SetToDefault(node) => node.visit(walker),
            Self::CurrentOfExpr(node) => node.visit(walker),
            Self::NextValueExpr(node) => node.visit(walker),
            Self::InferenceElem(node) => node.visit(walker),
            Self::ReturningExpr(node) => node.visit(walker),
            Self::TargetEntry(node) => node.visit(walker),
            Self::RangeTblRef(node) => node.visit(walker),
            Self::JoinExpr(node) => node.visit(walker),
            Self::FromExpr(node) => node.visit(walker),
            Self::OnConflictExpr(node) => node.visit(walker),
            Self::Query(node) => node.visit(walker),
            Self::TypeName(node) => node.visit(walker),
            Self::ColumnRef(node) => node.visit(walker),
            Self::ParamRef(node) => node.visit(walker),
            Self::AExpr(node) => node.visit(walker),
            Self::TypeCast(node) => node.visit(walker),
            Self::CollateClause(node) => node.visit(walker),
            Self::RoleSpec(node) => node.visit(walker),
            Self::FuncCall(node) => node.visit(walker),
            Self::AStar(node) => node.visit(walker),
            Self::AIndices(node) => node.visit(walker),
            Self::AIndirection(node) => node.visit(walker),
            Self::AArrayExpr(node) => node.visit(walker),
            Self::ResTarget(node) => node.visit(walker),
            Self::MultiAssignRef(node) => node.visit(walker),
            Self::SortBy(node) => node.visit(walker),
            Self::WindowDef(node) => node.visit(walker),
            Self::RangeSubselect(node) => node.visit(walker),
            Self::RangeFunction(node) => node.visit(walker),
            Self::RangeTableFunc(node) => node.visit(walker),
            Self::RangeTableFuncCol(node) => node.visit(walker),
            Self::RangeTableSample(node) => node.visit(walker),
            Self::ColumnDef(node) => node.visit(walker),
            Self::TableLikeClause(node) => node.visit(walker),
            Self::IndexElem(node) => node.visit(walker),
            Self::DefElem(node) => node.visit(walker),
            Self::LockingClause(node) => node.visit(walker),
            Self::XmlSerialize(node) => node.visit(walker),
            Self::PartitionElem(node) => node.visit(walker),
            Self::PartitionSpec(node) => node.visit(walker),
            Self::PartitionBoundSpec(node) => node.visit(walker),
            Self::PartitionRangeDatum(node) => node.visit(walker),
            Self::PartitionCmd(node) => node.visit(walker),
            Self::RangeTblEntry(node) => node.visit(walker),
            Self::RtepermissionInfo(node) => node.visit(walker),
            Self::RangeTblFunction(node) => node.visit(walker),
            Self::TableSampleClause(node) => node.visit(walker),
            Self::WithCheckOption(node) => node.visit(walker),
            Self::SortGroupClause(node) => node.visit(walker),
            Self::GroupingSet(node) => node.visit(walker),
            Self::WindowClause(node) => node.visit(walker),
            Self::RowMarkClause(node) => node.visit(walker),
            Self::WithClause(node) => node.visit(walker),
            Self::InferClause(node) => node.visit(walker),
            Self::OnConflictClause(node) => node.visit(walker),
            Self::CtesearchClause(node) => node.visit(walker),
            Self::CtecycleClause(node) => node.visit(walker),
            Self::CommonTableExpr(node) => node.visit(walker),
            Self::MergeWhenClause(node) => node.visit(walker),
            Self::ReturningOption(node) => node.visit(walker),
            Self::ReturningClause(node) => node.visit(walker),
            Self::TriggerTransition(node) => node.visit(walker),
            Self::JsonOutput(node) => node.visit(walker),
            Self::JsonArgument(node) => node.visit(walker),
            Self::JsonFuncExpr(node) => node.visit(walker),
            Self::JsonTablePathSpec(node) => node.visit(walker),
            Self::JsonTable(node) => node.visit(walker),
            Self::JsonTableColumn(node) => node.visit(walker),
            Self::JsonKeyValue(node) => node.visit(walker),
            Self::JsonParseExpr(node) => node.visit(walker),
            Self::JsonScalarExpr(node) => node.visit(walker),
            Self::JsonSerializeExpr(node) => node.visit(walker),
            Self::JsonObjectConstructor(node) => node.visit(walker),
            Self::JsonArrayConstructor(node) => node.visit(walker),
            Self::JsonArrayQueryConstructor(node) => node.visit(walker),
            Self::JsonAggConstructor(node) => node.visit(walker),
            Self::JsonObjectAgg(node) => node.visit(walker),
            Self::JsonArrayAgg(node) => node.visit(walker),
            Self::RawStmt(node) => node.visit(walker),
            Self::InsertStmt(node) => node.visit(walker),
            Self::DeleteStmt(node) => node.visit(walker),
            Self::UpdateStmt(node) => node.visit(walker),
            Self::MergeStmt(node) => node.visit(walker),
            Self::SelectStmt(node) => node.visit(walker),
            Self::SetOperationStmt(node) => node.visit(walker),
            Self::ReturnStmt(node) => node.visit(walker),
            Self::PlassignStmt(node) => node.visit(walker),
            Self::CreateSchemaStmt(node) => node.visit(walker),
            Self::AlterTableStmt(node) => node.visit(walker),
            Self::AlterTableCmd(node) => node.visit(walker),
            Self::AtalterConstraint(node) => node.visit(walker),
            Self::ReplicaIdentityStmt(node) => node.visit(walker),
            Self::AlterCollationStmt(node) => node.visit(walker),
            Self::AlterDomainStmt(node) => node.visit(walker),
            Self::GrantStmt(node) => node.visit(walker),
            Self::ObjectWithArgs(node) => node.visit(walker),
            Self::AccessPriv(node) => node.visit(walker),
            Self::GrantRoleStmt(node) => node.visit(walker),
            Self::AlterDefaultPrivilegesStmt(node) => node.visit(walker),
            Self::CopyStmt(node) => node.visit(walker),
            Self::VariableSetStmt(node) => node.visit(walker),
            Self::VariableShowStmt(node) => node.visit(walker),
            Self::CreateStmt(node) => node.visit(walker),
            Self::Constraint(node) => node.visit(walker),
            Self::CreateTableSpaceStmt(node) => node.visit(walker),
            Self::DropTableSpaceStmt(node) => node.visit(walker),
            Self::AlterTableSpaceOptionsStmt(node) => node.visit(walker),
            Self::AlterTableMoveAllStmt(node) => node.visit(walker),
            Self::CreateExtensionStmt(node) => node.visit(walker),
            Self::AlterExtensionStmt(node) => node.visit(walker),
            Self::AlterExtensionContentsStmt(node) => node.visit(walker),
            Self::CreateFdwStmt(node) => node.visit(walker),
            Self::AlterFdwStmt(node) => node.visit(walker),
            Self::CreateForeignServerStmt(node) => node.visit(walker),
            Self::AlterForeignServerStmt(node) => node.visit(walker),
            Self::CreateForeignTableStmt(node) => node.visit(walker),
            Self::CreateUserMappingStmt(node) => node.visit(walker),
            Self::AlterUserMappingStmt(node) => node.visit(walker),
            Self::DropUserMappingStmt(node) => node.visit(walker),
            Self::ImportForeignSchemaStmt(node) => node.visit(walker),
            Self::CreatePolicyStmt(node) => node.visit(walker),
            Self::AlterPolicyStmt(node) => node.visit(walker),
            Self::CreateAmStmt(node) => node.visit(walker),
            Self::CreateTrigStmt(node) => node.visit(walker),
            Self::CreateEventTrigStmt(node) => node.visit(walker),
            Self::AlterEventTrigStmt(node) => node.visit(walker),
            Self::CreatePlangStmt(node) => node.visit(walker),
            Self::CreateRoleStmt(node) => node.visit(walker),
            Self::AlterRoleStmt(node) => node.visit(walker),
            Self::AlterRoleSetStmt(node) => node.visit(walker),
            Self::DropRoleStmt(node) => node.visit(walker),
            Self::CreateSeqStmt(node) => node.visit(walker),
            Self::AlterSeqStmt(node) => node.visit(walker),
            Self::DefineStmt(node) => node.visit(walker),
            Self::CreateDomainStmt(node) => node.visit(walker),
            Self::CreateOpClassStmt(node) => node.visit(walker),
            Self::CreateOpClassItem(node) => node.visit(walker),
            Self::CreateOpFamilyStmt(node) => node.visit(walker),
            Self::AlterOpFamilyStmt(node) => node.visit(walker),
            Self::DropStmt(node) => node.visit(walker),
            Self::TruncateStmt(node) => node.visit(walker),
            Self::CommentStmt(node) => node.visit(walker),
            Self::SecLabelStmt(node) => node.visit(walker),
            Self::DeclareCursorStmt(node) => node.visit(walker),
            Self::ClosePortalStmt(node) => node.visit(walker),
            Self::FetchStmt(node) => node.visit(walker),
            Self::IndexStmt(node) => node.visit(walker),
            Self::CreateStatsStmt(node) => node.visit(walker),
            Self::StatsElem(node) => node.visit(walker),
            Self::AlterStatsStmt(node) => node.visit(walker),
            Self::CreateFunctionStmt(node) => node.visit(walker),
            Self::FunctionParameter(node) => node.visit(walker),
            Self::AlterFunctionStmt(node) => node.visit(walker),
            Self::DoStmt(node) => node.visit(walker),
            Self::InlineCodeBlock(node) => node.visit(walker),
            Self::CallStmt(node) => node.visit(walker),
            Self::CallContext(node) => node.visit(walker),
            Self::RenameStmt(node) => node.visit(walker),
            Self::AlterObjectDependsStmt(node) => node.visit(walker),
            Self::AlterObjectSchemaStmt(node) => node.visit(walker),
            Self::AlterOwnerStmt(node) => node.visit(walker),
            Self::AlterOperatorStmt(node) => node.visit(walker),
            Self::AlterTypeStmt(node) => node.visit(walker),
            Self::RuleStmt(node) => node.visit(walker),
            Self::NotifyStmt(node) => node.visit(walker),
            Self::ListenStmt(node) => node.visit(walker),
            Self::UnlistenStmt(node) => node.visit(walker),
            Self::TransactionStmt(node) => node.visit(walker),
            Self::CompositeTypeStmt(node) => node.visit(walker),
            Self::CreateEnumStmt(node) => node.visit(walker),
            Self::CreateRangeStmt(node) => node.visit(walker),
            Self::AlterEnumStmt(node) => node.visit(walker),
            Self::ViewStmt(node) => node.visit(walker),
            Self::LoadStmt(node) => node.visit(walker),
            Self::CreatedbStmt(node) => node.visit(walker),
            Self::AlterDatabaseStmt(node) => node.visit(walker),
            Self::AlterDatabaseRefreshCollStmt(node) => node.visit(walker),
            Self::AlterDatabaseSetStmt(node) => node.visit(walker),
            Self::DropdbStmt(node) => node.visit(walker),
            Self::AlterSystemStmt(node) => node.visit(walker),
            Self::ClusterStmt(node) => node.visit(walker),
            Self::VacuumStmt(node) => node.visit(walker),
            Self::VacuumRelation(node) => node.visit(walker),
            Self::ExplainStmt(node) => node.visit(walker),
            Self::CreateTableAsStmt(node) => node.visit(walker),
            Self::RefreshMatViewStmt(node) => node.visit(walker),
            Self::CheckPointStmt(node) => node.visit(walker),
            Self::DiscardStmt(node) => node.visit(walker),
            Self::LockStmt(node) => node.visit(walker),
            Self::ConstraintsSetStmt(node) => node.visit(walker),
            Self::ReindexStmt(node) => node.visit(walker),
            Self::CreateConversionStmt(node) => node.visit(walker),
            Self::CreateCastStmt(node) => node.visit(walker),
            Self::CreateTransformStmt(node) => node.visit(walker),
            Self::PrepareStmt(node) => node.visit(walker),
            Self::ExecuteStmt(node) => node.visit(walker),
            Self::DeallocateStmt(node) => node.visit(walker),
            Self::DropOwnedStmt(node) => node.visit(walker),
            Self::ReassignOwnedStmt(node) => node.visit(walker),
            Self::AlterTsdictionaryStmt(node) => node.visit(walker),
            Self::AlterTsconfigurationStmt(node) => node.visit(walker),
            Self::PublicationTable(node) => node.visit(walker),
            Self::PublicationObjSpec(node) => node.visit(walker),
            Self::CreatePublicationStmt(node) => node.visit(walker),
            Self::AlterPublicationStmt(node) => node.visit(walker),
            Self::CreateSubscriptionStmt(node) => node.visit(walker),
            Self::AlterSubscriptionStmt(node) => node.visit(walker),
            Self::DropSubscriptionStmt(node) => node.visit(walker),
            Self::Integer(node) => node.visit(walker),
            Self::Float(node) => node.visit(walker),
            Self::Boolean(node) => node.visit(walker),
            Self::String(node) => node.visit(walker),
            Self::BitString(node) => node.visit(walker),
            Self::List(node) => node.visit(walker),
            Self::IntList(node) => node.visit(walker),
            Self::OidList(node) => node.visit(walker),
            Self::AConst(node) => node.visit(walker),
        }
    }
}
