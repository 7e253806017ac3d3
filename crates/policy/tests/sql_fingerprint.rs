//! Same key, same facts: whatever the literals say.

mod sql_common;

use policy::sql::{Analysis, SqlState, analyze, fingerprint};
use proptest::prelude::*;
use sql_common::{line, shop};

/// Statements of services, and some that a key could get wrong.
const STATEMENTS: [&str; 44] = [
    "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
    "UPDATE pgbench_accounts SET abalance = abalance + -733 WHERE aid = 1;",
    "INSERT INTO t (id, a, b) VALUES (1, 'x', 2.5), (2, 'y', 1e5)",
    "SELECT * FROM customers WHERE email = 'a@example.org' AND id IN (1, 2, 3) ORDER BY 2 LIMIT 10 OFFSET 20",
    "SELECT 'a' 'b'",
    "SELECT 'a'\n'b' FROM t",
    "SELECT E'a\\'b', $$x$$, B'01', X'1F', N'n', U&'u' FROM t",
    "DELETE FROM t WHERE 1 = 1",
    "DELETE FROM t WHERE id = 1 OR 2 = 3",
    "DELETE FROM t WHERE 'a' = 'b' AND id = 5",
    "UPDATE t SET a = 'x' WHERE id BETWEEN 1 AND 2",
    "WITH c AS (SELECT 1 AS id) SELECT * FROM c JOIN t USING (id) WHERE t.a = 'c'",
    "WITH d AS (DELETE FROM t WHERE id = 5 RETURNING *) INSERT INTO u SELECT id, 'x' FROM d",
    "SELECT interval '1 day', date '2020-01-01', '1'::int, CAST('2' AS numeric(10, 2))",
    "SELECT * FROM t WHERE a ->> 'key' = 'v' AND b @> '{1}' AND a ? 'x'",
    "SELECT a[1], a[1:2] FROM t",
    "SELECT nextval('s'), currval('hr.s'), current_setting('role')",
    "SELECT to_char(now(), 'YYYY'), date_trunc('day', now()), extract(year FROM now())",
    "SELECT * FROM generate_series(1, 10) g, LATERAL (SELECT g * 2) s",
    "SELECT json_build_object('a', 1, 'b', 'c')",
    "SELECT string_agg(a, ', ' ORDER BY id) FILTER (WHERE id > 5) FROM t",
    "SELECT count(*) OVER (ROWS BETWEEN 1 PRECEDING AND 2 FOLLOWING) FROM t",
    "SELECT CASE WHEN id = 1 THEN 'a' ELSE 'b' END FROM t",
    "VALUES (1, 'a'), (2, 'b')",
    "TABLE customers",
    "BEGIN; UPDATE t SET a = 1 WHERE id = 2; COMMIT",
    "SELECT refund(5), abs(-3)",
    "SELECT pg_notify('channel', 'payload')",
    "SELECT set_config('role', 'x', false)",
    "SELECT set_config('search_path', 'app', false)",
    "SELECT query_to_xml('select 1', true, true, '')",
    "SELECT 'customers'::regclass",
    "SET ROLE 'x'",
    "SET search_path = 'app'",
    "COPY t TO '/tmp/x'",
    "COPY t TO STDOUT (DELIMITER ',')",
    "DO 'BEGIN DELETE FROM t; END'",
    "SELECT * FROM t TABLESAMPLE bernoulli (10) REPEATABLE (5)",
    "MERGE INTO t USING u ON t.id = u.id AND u.x = 5 WHEN MATCHED THEN UPDATE SET a = 'x'",
    "SELECT xmlelement(name a, 'b'), xpath('/a', a::xml) FROM t",
    "SELECT * FROM t WHERE id = $1 AND a = 'x' FOR UPDATE SKIP LOCKED",
    "EXPLAIN (FORMAT 'json') SELECT 1 FROM t",
    "SELECT 1 AS one, 2 two, 'x' AS \"X\"",
    "SELECT U&\"\\0074\" FROM t WHERE a = 'x'",
];

fn key(sql: &str) -> Option<(Vec<u8>, bool)> {
    let mut key = Vec::new();
    let lexed = fingerprint(sql.as_bytes(), &mut key).ok()?;
    Some((key, lexed.literals_matter))
}

fn analysis(sql: &str) -> Analysis {
    let catalog = shop();
    analyze(sql, Some(&catalog), &SqlState::new(&[], Some(&catalog)))
}

/// Everything of an analysis that a decision depends on.
fn summary(analysis: &Analysis) -> String {
    let Analysis { facts, tree, effects, literals_matter, depends_on_state, depends_on_statements, changes_catalog, .. } =
        analysis;
    let effects = format!("{effects:?}").len();
    format!(
        "{} {facts:?} parsed {} effects {effects} {literals_matter} {depends_on_state} {depends_on_statements} {changes_catalog} \
         {:?} {:?} {}",
        line(analysis),
        tree.is_some(),
        analysis.relations,
        analysis.functions,
        analysis.unresolved,
    )
}

/// The text with its literals replaced: `values` in turn, by kind.
fn with_literals(sql: &str, strings: &[String], numbers: &[i32]) -> String {
    use pg_query::protobuf::Token;
    let Ok(scanned) = pg_query::scan(sql) else { return sql.to_owned() };
    let (mut out, mut at) = (String::new(), 0);
    let mut strings = strings.iter().cycle();
    let mut numbers = numbers.iter().cycle();
    for token in &scanned.tokens {
        let (start, end) = (usize::try_from(token.start).unwrap(), usize::try_from(token.end).unwrap());
        let replaced = match Token::try_from(token.token) {
            Ok(Token::Iconst) => numbers.next().map(|number| number.unsigned_abs().min(i32::MAX as u32).to_string()),
            Ok(Token::Fconst) => numbers.next().map(|number| format!("{}.5", number.unsigned_abs())),
            Ok(Token::Sconst) if sql[start..end].starts_with('\'') => {
                strings.next().map(|text| format!("'{}'", text.replace('\'', "''")))
            }
            _ => None,
        };
        out.push_str(&sql[at..start]);
        out.push_str(replaced.as_deref().unwrap_or(&sql[start..end]));
        at = end;
    }
    out.push_str(&sql[at..]);
    out
}

/// Two texts with one key are one to policy, unless one of them says that its literals matter.
fn check_pair(one: &str, other: &str) {
    let (Some((key, by_text)), Some((other_key, _))) = (key(one), key(other)) else { return };
    if key != other_key || by_text {
        return;
    }
    let (one_analysis, other_analysis) = (analysis(one), analysis(other));
    if one_analysis.literals_matter && other_analysis.literals_matter {
        return;
    }
    assert_eq!(summary(&one_analysis), summary(&other_analysis), "{one}\n{other}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn same_key_same_facts(
        at in 0..STATEMENTS.len(),
        strings in prop::collection::vec("[a-z'\\\\;$\"-]{0,12}|role|search_path|select 1|hr\\.salaries", 1..4),
        numbers in prop::collection::vec(any::<i32>(), 1..4),
    ) {
        let one = STATEMENTS[at];
        let other = with_literals(one, &strings, &numbers);
        // Literals alone differ: the key is the same.
        let (Some((a, _)), Some((b, _))) = (key(one), key(&other)) else { panic!("{other} has no key") };
        prop_assert_eq!(a, b, "{}", other);
        check_pair(one, &other);
    }
}

#[test]
fn the_statements_of_services_do_not_depend_on_their_literals() {
    let plain = |statement: &&&str| !statement.contains("pg_") && **statement != "SELECT 'a' 'b'";
    for statement in STATEMENTS[..28].iter().filter(plain) {
        let (_, by_text) = key(statement).unwrap();
        assert!(!by_text && !analysis(statement).literals_matter, "{statement}");
    }
}

#[test]
fn statements_are_counted() {
    let count = |sql: &str| fingerprint(sql.as_bytes(), &mut Vec::new()).unwrap().statements_hint;
    assert_eq!(count("SELECT 1; ; (SELECT 2);"), 2);
    assert_eq!(count(" -- x"), 0);
}

/// PostgreSQL's own regression statements, where SALLYPORT_REGRESS says that they are: each text with its literals
/// replaced has the same facts, and no part of any is of a kind that is not known.
#[test]
fn postgresqls_regression_statements_are_read_whole() {
    let Some(folder) = std::env::var_os("SALLYPORT_REGRESS") else {
        eprintln!("skipped: SALLYPORT_REGRESS does not name the folder of PostgreSQL's regression statements");
        return;
    };
    let (mut read, mut refused, mut wrong) = (0, 0, Vec::new());
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap_or_default();
        let without_commands: String =
            text.lines().filter(|line| !line.starts_with('\\')).map(|line| format!("{line}\n")).collect();
        for statement in split(&without_commands) {
            let found = analysis(statement);
            if found.tree.is_none() {
                refused += 1;
                continue;
            }
            read += 1;
            let unknown = found.facts.unknown.iter().any(|unknown| unknown.what.starts_with("a part of the statement"));
            let unnamed = found.facts.kinds.is_empty() && !found.tree.as_ref().unwrap().stmts.is_empty();
            if unknown || unnamed {
                wrong.push(format!("{statement}\n    {}", line(&found)));
            }
            wrong.extend(missed(statement, &found));
            let strings = ["it's".to_owned(), "hr.salaries".to_owned()];
            check_pair(statement, &with_literals(statement, &strings, &[7, 1_000_000]));
        }
    }
    eprintln!("{read} statements read, {refused} that the grammar refuses");
    assert!(read > 20_000, "only {read}");
    assert!(wrong.is_empty(), "{} of {read}:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}

/// Tables and functions that libpg_query's own summary finds, and the analysis does not.
fn missed(statement: &str, found: &Analysis) -> Option<String> {
    let parsed = pg_query::parse(statement, 0).ok()?;
    let known = |name: &str| {
        let bare = name.rsplit('.').next().unwrap_or(name);
        found.relations.iter().any(|one| one.name == bare || format!("{}.{}", one.schema, one.name) == name)
            || found.facts.operations.iter().any(|one| one.object.path.last().is_some_and(|last| last == bare))
            || found.facts.operations.iter().any(|one| one.object.kind != proxy_core::ObjectKind::Table && one.action == "ddl")
    };
    // Its summary takes the names of common table expressions for tables in some places.
    let ctes = &parsed.cte_names;
    let tables: Vec<String> = parsed.tables().into_iter().filter(|name| !known(name) && !ctes.contains(name)).collect();
    (!tables.is_empty()).then(|| format!("{statement}\n    misses {tables:?}: {}", line(found)))
}

/// Statements of a file, by the server's own tokens.
fn split(text: &str) -> Vec<&str> {
    pg_query::split_with_scanner(text).unwrap_or_default()
}

/// `cargo test --release -p policy --test sql_fingerprint -- --ignored --nocapture how_long`
#[test]
#[ignore = "a measurement"]
fn how_long_a_key_takes() {
    let texts = [
        "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
        "UPDATE pgbench_accounts SET abalance = abalance + -733 WHERE aid = 1;",
        "SELECT c.id, c.name, count(o.id) AS orders FROM customers c LEFT JOIN orders o ON o.customer_id = c.id WHERE c.email = 'a@example.org' AND o.total > 100 GROUP BY c.id, c.name ORDER BY orders DESC LIMIT 10",
    ];
    let catalog = shop();
    let state = SqlState::new(&[], Some(&catalog));
    for text in texts {
        let mut key = Vec::with_capacity(4096);
        // The best of many rounds: the machine has other things to do.
        let nanoseconds = best(1_000, || {
            key.clear();
            fingerprint(std::hint::black_box(text.as_bytes()), &mut key).unwrap();
        });
        let analysed = best(100, || {
            std::hint::black_box(analyze(std::hint::black_box(text), Some(&catalog), &state));
        });
        println!("{} bytes: key {nanoseconds:.0} ns, analysis {analysed:.0} ns", text.len());
    }
}

/// Nanoseconds that `work` takes, in the best of 200 rounds of so many.
fn best(times: u32, mut work: impl FnMut()) -> f64 {
    let rounds = (0..200).map(|_| {
        let begin = std::time::Instant::now();
        (0..times).for_each(|_| work());
        begin.elapsed().as_nanos() as f64 / f64::from(times)
    });
    rounds.fold(f64::INFINITY, f64::min)
}
