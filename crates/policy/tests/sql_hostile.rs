//! Texts that nobody would write by accident: no panic, no crash of the grammar, an answer in bounded time.

mod sql_common;

use policy::sql::{SqlState, analyze, analyze_bytes, fingerprint};
use proptest::prelude::*;
use sql_common::{facts, shop};
use std::time::{Duration, Instant};

/// Words of SQL and of PL/pgSQL, in any order.
fn word() -> impl Strategy<Value = String> {
    let words = "SELECT FROM WHERE INSERT INTO VALUES UPDATE SET DELETE WITH RECURSIVE AS ( ) , ; . * = := <> + - 1 'x' $1 $$ \" ' -- /* */ \n t a b id \
                 CREATE TABLE TEMP VIEW DROP ALTER COLUMN COPY TO STDOUT STDIN PREPARE EXECUTE DECLARE CURSOR FOR FETCH GRANT ON \
                 BEGIN END IF THEN ELSE ELSIF LOOP WHILE FOREACH IN REVERSE .. SLICE RETURN NEXT QUERY RAISE NOTICE '%' EXCEPTION WHEN others \
                 OPEN CLOSE MOVE PERFORM CALL COMMIT ROLLBACK GET DIAGNOSTICS ROW_COUNT ASSERT CASE EXIT CONTINUE <<l>> l int record \
                 text[] t%ROWTYPE t.a%TYPE CONSTANT NOT NULL DEFAULT refcursor STRICT USING ALIAS EXPLAIN ANALYZE MERGE MATCHED DO LANGUAGE plpgsql \
                 ROW ARRAY [ ] :: JSON_TABLE XMLTABLE LATERAL UNION ALL ORDER BY LIMIT RETURNING CONFLICT NOTHING #option dump #variable_conflict";
    prop::sample::select(words.split(' ').map(str::to_owned).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn any_words_are_answered(words in prop::collection::vec(word(), 0..24)) {
        let text = words.join(" ");
        let _ = facts(&text);
        let _ = fingerprint(text.as_bytes(), &mut Vec::new());
    }

    #[test]
    fn any_block_is_answered(declared in prop::collection::vec(word(), 0..8), body in prop::collection::vec(word(), 0..24)) {
        let text = format!("DO $outer$ DECLARE {} BEGIN {} END $outer$", declared.join(" "), body.join(" "));
        let _ = facts(&text);
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let catalog = shop();
        let _ = analyze_bytes(&bytes, Some(&catalog), &SqlState::new(&[], None));
        let _ = fingerprint(&bytes, &mut Vec::new());
    }

    #[test]
    fn a_changed_statement_is_answered(at in 0..BLOCKS.len(), cut in 0usize..400, put in word(), length in 0usize..6) {
        let text: Vec<char> = BLOCKS[at].chars().collect();
        let cut = cut.min(text.len());
        let rest = (cut + length).min(text.len());
        let changed: String = text[..cut].iter().chain(put.chars().collect::<Vec<_>>().iter()).chain(&text[rest..]).collect();
        let _ = facts(&changed);
    }
}

/// SALLYPORT_FUZZ_CASES: how many; a few in the ordinary run.
fn cases() -> u32 {
    std::env::var("SALLYPORT_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(500)
}

const BLOCKS: [&str; 6] = [
    "DO $$ DECLARE r record; n int := 5; c CURSOR (k int) FOR SELECT * FROM t WHERE id = k; BEGIN FOR r IN c(1) LOOP UPDATE u SET x = r.id; END LOOP; OPEN c(2); FETCH NEXT FROM c INTO r; CLOSE c; END $$",
    "DO $$ <<l>> DECLARE a int[] := ARRAY[1]; v t%ROWTYPE; w t.id%TYPE; BEGIN FOREACH n SLICE 1 IN ARRAY a LOOP EXIT l WHEN n > 1; END LOOP; a[1] := 2; v.id := 3; GET DIAGNOSTICS w = ROW_COUNT; END $$",
    "DO $$ BEGIN CASE 1 WHEN 1, 2 THEN NULL; ELSE RAISE EXCEPTION USING MESSAGE = 'x'; END CASE; BEGIN INSERT INTO t VALUES (1); EXCEPTION WHEN unique_violation OR SQLSTATE '22012' THEN RAISE; END; RETURN; END $$",
    "DO $$ DECLARE x text; BEGIN EXECUTE 'a' INTO STRICT x USING 1, 2; FOR x IN EXECUTE 'b' USING 1 LOOP END LOOP; ASSERT x IS NULL, 'm'; COMMIT AND CHAIN; CALL refund(1); END $$",
    "WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT id FROM a) SEARCH DEPTH FIRST BY id SET s CYCLE id SET c USING p MERGE INTO t USING a ON true WHEN MATCHED THEN DELETE",
    "CREATE TABLE x (id int PRIMARY KEY, a text DEFAULT 'x', b int GENERATED ALWAYS AS (id * 2) STORED, CHECK (a <> ''), FOREIGN KEY (b) REFERENCES t (id)) PARTITION BY RANGE (id)",
];

#[test]
fn nesting_has_an_end() {
    let nested = [
        format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000)),
        format!("SELECT {}1{}", "ARRAY[".repeat(5_000), "]".repeat(5_000)),
        format!("SELECT * FROM {}t{}", "(SELECT * FROM ".repeat(1_000), ") s".repeat(1_000)),
        format!("SELECT {} 1", "NOT ".repeat(20_000)),
        format!("SELECT {} 1", "- ".repeat(20_000)),
        format!("DO $$ {} NULL; {} $$", "BEGIN ".repeat(2_000), "END; ".repeat(2_000)),
        format!("EXPLAIN {}", "EXPLAIN ".repeat(100)),
        format!("WITH {}", "a AS (WITH ".repeat(1_000)),
        "/*".repeat(500_000),
        format!("{}{}", "/*".repeat(500_000), "*/".repeat(500_000)),
        format!("SELECT {}1", "+".repeat(1_000_000)),
        format!("SELECT {}1", "+-".repeat(500_000)),
        format!("DO $$ BEGIN PERFORM {}1; END $$", "+".repeat(60_000)),
        format!("SELECT {}1", "- -".repeat(10_000)),
        format!("/{}/ SELECT 1", "*".repeat(1_000_000)),
        format!("SELECT 1 {}", "--\n".repeat(300_000)),
        format!("SELECT 'a'{}", " ".repeat(1_000_000)),
        format!("SELECT {}", "'a'\n".repeat(200_000)),
        format!("SELECT $a$ {}", "$a ".repeat(300_000)),
        format!("SELECT {}", "1..".repeat(300_000)),
        format!("SELECT {}", "a.".repeat(300_000)),
        format!("SELECT 1 {}", "UNION SELECT 1 ".repeat(2_000)),
    ];
    for text in nested {
        let begin = Instant::now();
        let _ = facts(&text);
        let _ = fingerprint(text.as_bytes(), &mut Vec::new());
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?} for {}", begin.elapsed(), &text[..40]);
    }
}

#[test]
fn what_is_too_deep_to_read_is_unknown() {
    for text in [
        format!("DELETE FROM t WHERE {} true {}", "(SELECT ".repeat(300), ")".repeat(300)),
        format!("SELECT * FROM {}hr.salaries{}", "(SELECT * FROM ".repeat(300), ") s".repeat(300)),
    ] {
        assert!(facts(&text).contains("unknown") || facts(&text).contains("hr.salaries"), "{}", facts(&text));
    }
}

#[test]
fn a_long_text_is_answered() {
    let mut text = "SELECT 1 WHERE 1 = 2".to_owned();
    while text.len() < 1 << 20 {
        text.push_str(" OR 1 = 2");
    }
    let begin = Instant::now();
    let _ = facts(&text);
    let mut key = Vec::new();
    fingerprint(text.as_bytes(), &mut key).unwrap();
    assert!(key.len() < text.len());
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    let values = format!("INSERT INTO t VALUES {}", vec!["(1, 'x', 2.5)"; 50_000].join(", "));
    assert_eq!(facts(&values), "insert table public.t");
}

#[test]
fn many_threads_parse_at_once() {
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let catalog = shop();
                let state = SqlState::new(&[], Some(&catalog));
                for round in 0..300 {
                    let analysis = analyze(&format!("SELECT {number}, {round} FROM t"), Some(&catalog), &state);
                    assert_eq!(analysis.facts.operations.len(), 1);
                }
            });
        }
    });
    // Standard error is what it was.
    eprintln!("still here");
}
