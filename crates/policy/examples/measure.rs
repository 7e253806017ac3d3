//! What decisions cost: `cargo run --release -p policy --example measure`.

use masking::MaskRules;
use policy::{CatalogSource, PolicyEngine, PolicySet};
use proxy_core::catalog::{Catalog, Column, Relation, RelationKind};
use proxy_core::pipeline::SessionFacts;
use proxy_core::{
    Authorizer, Principal, PrincipalKind, Request, RequestId, RequestKind, SessionId, Statement, Target, Timestamp, Verdict,
};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

/// One table, always there.
struct OneTable(Arc<Catalog>);

impl OneTable {
    fn new() -> Self {
        let columns = ["aid", "bid", "abalance", "filler"].iter().zip(1i16..);
        let columns = columns.map(|(name, number)| Column { number, name: (*name).to_owned(), type_id: 23, generated: false });
        let table = Relation {
            oid: 20_000,
            schema: "public".into(),
            name: "pgbench_accounts".into(),
            kind: RelationKind::Table,
            columns: columns.collect(),
            definition: None,
            parents: Vec::new(),
        };
        Self(Arc::new(Catalog::new(1, 150_018, vec!["public".into()], vec![table], Vec::new())))
    }
}

impl CatalogSource for OneTable {
    fn generation(&self) -> u64 {
        1
    }

    fn current(&self, _: &Target) -> Option<Arc<Catalog>> {
        Some(self.0.clone())
    }

    fn refresh(&self, _: &Target) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

fn facts() -> SessionFacts {
    SessionFacts {
        id: SessionId([7; 16]),
        principal: Arc::new(Principal {
            kind: PrincipalKind::Service,
            issuer: "dev".into(),
            subject: "bench".into(),
            tenant: None,
            application: None,
            credential_id: None,
            aliases: Vec::new(),
            roles: vec!["writer".into(), "team-3".into()],
            claims: BTreeMap::new(),
            expires: None,
        }),
        target: Arc::new(Target {
            connection: "orders-7".into(),
            address: "127.0.0.1:5432".into(),
            database: "orders".into(),
            upstream_user: "gateway".into(),
            owner: None,
            tags: BTreeMap::from([("env".into(), "dev".into())]),
        }),
        source: "127.0.0.1".into(),
        application: "bench".into(),
        settings: Vec::new(),
    }
}

/// `count` policies; `scoped`: they name connections and roles in their scope, as policies of many teams do.
fn policies(count: usize, scoped: bool) -> PolicySet {
    let mut text = String::from("@id(\"writers\") permit (principal in Role::\"writer\", action, resource);\n");
    for number in 1..count {
        let connection = number % 50;
        if scoped {
            text.push_str(&format!(
                "permit (principal in Role::\"team-{number}\", action in Action::\"read\", resource in Connection::\"orders-{connection}\") when {{ resource.hasTag(\"env\") }};\n"
            ));
        } else {
            text.push_str(&format!(
                "forbid (principal, action, resource) when {{ resource.hasTag(\"env\") && resource.getTag(\"env\") == \"env-{number}\" && principal.subject == \"x\" }};\n"
            ));
        }
    }
    PolicySet::parse([(PathBuf::from("bench.cedar"), text)]).expect("valid policies")
}

fn request(number: u64, text: String) -> Request {
    Request {
        id: RequestId(number),
        kind: RequestKind::Query,
        statement: Statement::Sql(text.into()),
        prepared_as: None,
        portal: None,
        parameters: Vec::new(),
    }
}

fn per_item(label: &str, count: u64, mut run: impl FnMut(u64)) {
    let start = Instant::now();
    for number in 0..count {
        run(number);
    }
    let each = start.elapsed().as_nanos() as f64 / count as f64;
    println!("  {label:<50} {:>10.3} µs", each / 1_000.0);
}

fn main() {
    let now = Timestamp::from_seconds(1_795_520_097);
    for (count, scoped) in [(10, false), (10, true), (100, false), (1_000, false), (1_000, true), (10_000, true)] {
        println!(
            "{count} policies, {}",
            if scoped { "scoped to roles and connections" } else { "none of which can be left out" }
        );
        let start = Instant::now();
        let set = policies(count, scoped);
        println!("  {:<50} {:>10.3} ms", "load and validate", start.elapsed().as_secs_f64() * 1_000.0);
        let engine = PolicyEngine::new(set, MaskRules::default(), Arc::new(OneTable::new()));
        let mut session = engine.open(&facts());
        let statement = |number: u64| format!("SELECT abalance FROM pgbench_accounts WHERE aid = {number}");
        let start = Instant::now();
        let first = session.decide(now, &request(1, statement(1)), None).expect("ready");
        assert_eq!(first.verdict, Verdict::Allow);
        println!("  {:<50} {:>10.3} µs", "first decision of a principal", start.elapsed().as_secs_f64() * 1e6);
        per_item("new statement on a known table", 2_000, |number| {
            // Names differ, so that each has a key of its own.
            let alias: String = format!("{number:05}").bytes().map(|digit| char::from(digit + 49)).collect();
            let request = request(number + 2, format!("SELECT abalance AS {alias} FROM public.pgbench_accounts WHERE aid = 1"));
            black_box(session.decide(now, &request, None).expect("ready"));
        });
        let requests: Vec<Request> = (0..1_000).map(|number| request(number + 10_000, statement(number))).collect();
        per_item("known statement, other literals", 1_000_000, |number| {
            let request = &requests[number as usize % requests.len()];
            black_box(session.decide(now, request, None).expect("ready"));
        });
        per_item("open a session", 20_000, |_| {
            black_box(engine.open(&facts()));
        });
    }
}
