//! tokio-postgres: the suite of `tests/clients/README.md` for Rust's driver.

use bytes::Bytes;
use e2e::Server;
use futures_util::{SinkExt, StreamExt, TryStreamExt, pin_mut};
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

const EMAIL: &str = "ada.lovelace@example.com";
const CARD: &str = "4111111111111111";
const TEN_MB: usize = 10_000_000;

/// A test with a server and a session; skipped where there is no server. `policy`: it needs the gateway.
macro_rules! behaviour {
    ($($kind:ident $name:ident($server:ident, $client:ident) $body:block)*) => {$(
        #[tokio::test]
        async fn $name() {
            let Some($server) = Server::from_environment() else { return };
            if stringify!($kind) == "policy" && $server.direct {
                return;
            }
            let run = async {
                #[allow(unused_mut, reason = "transactions need it")]
                let mut $client = $server.connect().await;
                $body
            };
            tokio::time::timeout(Duration::from_secs(120), run).await.expect("it ends");
        }
    )*};
}

fn state(error: &Error) -> Option<&SqlState> {
    error.code()
}

fn denied<T>(result: Result<T, Error>) {
    let error = result.err().expect("it is denied");
    assert_eq!(state(&error), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{error}");
}

fn masked(email: &str, card: &str) {
    assert!(email.starts_with("a***@e***") && email.ends_with(".com"), "{email}");
    assert!(card.ends_with("1111") && !card.contains("41111"), "{card}");
}

fn hidden(text: &[u8]) {
    for clear in [EMAIL, CARD] {
        assert!(!text.windows(clear.len()).any(|window| window == clear.as_bytes()), "{clear} is in the clear");
    }
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

fn texts(messages: &[SimpleQueryMessage]) -> Vec<Vec<Option<String>>> {
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

behaviour! {
    both connect_tls(server, client) {
        assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
        assert!(!server.user.is_empty());
    }
    both simple_query(_server, client) {
        let rows = texts(&client.simple_query("SELECT id FROM products ORDER BY id LIMIT 3").await.unwrap());
        assert_eq!(rows, ["1", "2", "3"].map(|id| vec![Some(id.to_owned())]));
    }
    both parameters(_server, client) {
        let row = client.query_one("SELECT name FROM customers WHERE id = $1 AND country = $2", &[&1i32, &"GB"]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "Ada Lovelace");
    }
    both prepared_reexecution(_server, client) {
        let statement = client.prepare("SELECT id FROM products WHERE id = $1").await.unwrap();
        for wanted in [1i32, 2, 3, 2] {
            assert_eq!(client.query_one(&statement, &[&wanted]).await.unwrap().get::<_, i32>(0), wanted);
        }
    }
    both types_round_trip(_server, client) {
        let bytes: Vec<u8> = (0..=255).collect();
        let row = client
            .query_one(
                "SELECT $1::int2, $2::int4, $3::int8, $4::float8, $5::text, $6::bytea, $7::bool, $8::int4[]",
                &[&i16::MAX, &i32::MIN, &i64::MAX, &1.5e300f64, &"grüße, 🦀 \\ back", &bytes, &true, &vec![1i32, 2, 3]],
            )
            .await
            .unwrap();
        assert_eq!((row.get::<_, i16>(0), row.get::<_, i32>(1), row.get::<_, i64>(2)), (i16::MAX, i32::MIN, i64::MAX));
        assert_eq!((row.get::<_, f64>(3), row.get::<_, &str>(4)), (1.5e300, "grüße, 🦀 \\ back"));
        assert_eq!((row.get::<_, Vec<u8>>(5), row.get::<_, bool>(6), row.get::<_, Vec<i32>>(7)), (bytes, true, vec![1, 2, 3]));
    }
    both nulls(_server, client) {
        let row = client.query_one("SELECT $1::int4, NULL::text, ''::text", &[&None::<i32>]).await.unwrap();
        assert_eq!((row.get::<_, Option<i32>>(0), row.get::<_, Option<&str>>(1), row.get::<_, Option<&str>>(2)), (None, None, Some("")));
    }
    both transaction_commit(_server, client) {
        client.batch_execute("CREATE TEMP TABLE t (n int)").await.unwrap();
        let transaction = client.transaction().await.unwrap();
        transaction.execute("INSERT INTO t VALUES ($1)", &[&1i32]).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(count(&client, "SELECT count(*) FROM t").await, 1);
    }
    both transaction_rollback(_server, client) {
        client.batch_execute("CREATE TEMP TABLE t (n int)").await.unwrap();
        let transaction = client.transaction().await.unwrap();
        transaction.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
        transaction.rollback().await.unwrap();
        assert_eq!(count(&client, "SELECT count(*) FROM t").await, 0);
    }
    both savepoint(_server, client) {
        client.batch_execute("CREATE TEMP TABLE t (n int)").await.unwrap();
        let mut transaction = client.transaction().await.unwrap();
        let inner = transaction.savepoint("a").await.unwrap();
        inner.execute("SELECT 1/0", &[]).await.unwrap_err();
        inner.rollback().await.unwrap();
        transaction.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(count(&client, "SELECT count(*) FROM t").await, 1);
    }
    both error_keeps_session(_server, client) {
        let error = client.query("SELECT 1 / $1::int4", &[&0i32]).await.unwrap_err();
        assert_eq!(state(&error), Some(&SqlState::DIVISION_BY_ZERO));
        assert_eq!(count(&client, "SELECT 2::int8").await, 2);
    }
    both error_fields(_server, client) {
        let error = client.execute("INSERT INTO products (sku, name, price) VALUES ('SKU-00001', 'x', 1)", &[]).await.unwrap_err();
        let fields = error.as_db_error().unwrap();
        assert_eq!((fields.constraint(), fields.table(), fields.schema()), (Some("products_sku_key"), Some("products"), Some("public")));
    }
    policy denied_outside_transaction(_server, client) {
        denied(client.simple_query("SELECT * FROM secrets").await);
        denied(client.query("SELECT * FROM secrets WHERE id = $1", &[&1i32]).await);
        denied(client.prepare("SELECT value FROM secrets").await);
        denied(client.batch_execute("DELETE FROM order_lines").await);
        assert_eq!(count(&client, "SELECT 3::int8").await, 3);
    }
    policy denied_inside_transaction(_server, client) {
        client.batch_execute("CREATE TEMP TABLE t (n int)").await.unwrap();
        client.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
        denied(client.query("SELECT * FROM secrets WHERE id = $1", &[&1i32]).await);
        let error = client.query("SELECT 1", &[]).await.unwrap_err();
        assert_eq!(state(&error), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
        client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(count(&client, "SELECT count(*) FROM t").await, 0);
    }
    policy denied_in_pipeline(_server, client) {
        // Sent without waiting: the one in the middle is denied, the others answer.
        let (first, second, third) = tokio::join!(
            client.query("SELECT 1", &[]),
            client.query("SELECT * FROM secrets", &[]),
            client.query("SELECT 3", &[]),
        );
        assert_eq!(first.unwrap()[0].get::<_, i32>(0), 1);
        denied(second);
        assert_eq!(third.unwrap()[0].get::<_, i32>(0), 3);
    }
    policy masked_text(_server, client) {
        let rows = texts(&client.simple_query("SELECT email AS name, card_number AS id FROM customers x WHERE x.id = 1").await.unwrap());
        masked(rows[0][0].as_deref().unwrap(), rows[0][1].as_deref().unwrap());
    }
    policy masked_binary(_server, client) {
        let row = client.query_one("SELECT email, card_number, id FROM customers WHERE id = $1", &[&1i32]).await.unwrap();
        masked(row.get(0), row.get(1));
        assert_eq!(row.get::<_, i32>(2), 1);
    }
    policy masked_prepared(_server, client) {
        let statement = client.prepare("SELECT email, card_number FROM customers WHERE id = $1").await.unwrap();
        for _ in 0..3 {
            let row = client.query_one(&statement, &[&1i32]).await.unwrap();
            masked(row.get(0), row.get(1));
        }
    }
    policy masked_portal(_server, client) {
        let transaction = client.transaction().await.unwrap();
        let portal = transaction.bind("SELECT email, card_number FROM customers ORDER BY id", &[]).await.unwrap();
        for part in 0..3 {
            let rows = transaction.query_portal(&portal, 10).await.unwrap();
            assert_eq!(rows.len(), 10);
            if part == 0 {
                masked(rows[0].get(0), rows[0].get(1));
            }
        }
        transaction.commit().await.unwrap();
    }
    policy masked_returning(_server, client) {
        let sql = "UPDATE customers SET balance = balance WHERE id = $1 RETURNING email, card_number";
        let row = client.query_one(sql, &[&1i32]).await.unwrap();
        masked(row.get(0), row.get(1));
    }
    policy masked_copy_out(_server, client) {
        let stream = client.copy_out("COPY customers (email, card_number) TO STDOUT").await.unwrap();
        let blocks: Vec<Bytes> = stream.try_collect().await.unwrap();
        let data = blocks.concat();
        hidden(&data);
        assert!(data.windows(8).any(|window| window == b"***@e***"));
    }
    policy masked_expression(_server, client) {
        for expression in ["lower(email)", "email || ''", "row_to_json(customers)::text"] {
            match client.query_one(&format!("SELECT {expression} FROM customers WHERE id = 1"), &[]).await {
                Ok(row) => hidden(row.get::<_, &str>(0).as_bytes()),
                Err(error) => assert_eq!(state(&error), Some(&SqlState::INSUFFICIENT_PRIVILEGE)),
            }
        }
    }
    both large_result(_server, client) {
        let none: [&str; 0] = [];
        let stream = client.query_raw("SELECT n, repeat('x', 50) FROM generate_series(1, 200000) n", none).await.unwrap();
        pin_mut!(stream);
        let (mut rows, mut total) = (0u64, 0i64);
        while let Some(row) = stream.next().await {
            rows += 1;
            total += i64::from(row.unwrap().get::<_, i32>(0));
        }
        assert_eq!((rows, total), (200_000, 20_000_100_000));
    }
    both copy_in_out(_server, client) {
        client.batch_execute("CREATE TEMP TABLE t (n int, s text)").await.unwrap();
        let data: String = (0..10_000).map(|n| format!("{n}\tline {n}\n")).collect();
        let sink = client.copy_in("COPY t FROM STDIN").await.unwrap();
        pin_mut!(sink);
        sink.send(Bytes::from(data.clone())).await.unwrap();
        assert_eq!(sink.finish().await.unwrap(), 10_000);
        let blocks: Vec<Bytes> = client.copy_out("COPY t TO STDOUT").await.unwrap().try_collect().await.unwrap();
        assert_eq!(blocks.concat(), data.as_bytes());
        // Given up half way: nothing is there, the session works.
        let sink = client.copy_in::<_, Bytes>("COPY t FROM STDIN").await.unwrap();
        drop(sink);
        assert_eq!(count(&client, "SELECT count(*) FROM t").await, 10_000);
    }
    both cancel(server, client) {
        let token = client.cancel_token();
        let (answer, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(30)"), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            // Inside TLS, as libpq 17 cancels; the plain way is tested by psql and psycopg2.
            token.cancel_query_raw(server.tls().await.unwrap(), NoTls).await.unwrap();
        });
        assert_eq!(state(&answer.unwrap_err()), Some(&SqlState::QUERY_CANCELED));
        assert_eq!(count(&client, "SELECT 1::int8").await, 1);
    }
    both pipeline(_server, client) {
        let statement = client.prepare("SELECT $1::int4").await.unwrap();
        let numbers: Vec<i32> = (0..500).collect();
        let queries = numbers.iter().map(|n| async { client.query_one(&statement, &[n]).await.unwrap().get::<_, i32>(0) });
        assert_eq!(futures_util::future::join_all(queries).await, numbers);
    }
    both multiple_results(_server, client) {
        let rows = texts(&client.simple_query("SELECT 1; SELECT 'two', 2; SELECT 3").await.unwrap());
        assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 1]);
    }
    both long_value(_server, client) {
        let value = "y".repeat(TEN_MB);
        let row = client.query_one("SELECT $1::text, length($1)", &[&value]).await.unwrap();
        assert_eq!(row.get::<_, i32>(1), 10_000_000);
        assert!(row.get::<_, &str>(0) == value);
    }
    both wrong_token(server, _client) {
        let error = server.connect_with("wrong").await.expect_err("it is refused");
        let state = state(&error).expect("an SQLSTATE").code().to_owned();
        assert!(state == "28P01" || state == "28000", "{state}");
    }
}
