use super::*;
use proptest::prelude::*;
use std::time::Instant;

fn mask(with: &MaskWith) -> Arc<dyn Mask> {
    build("c".into(), with, &SecretBytes::new(vec![1; 32]))
}

fn all() -> Vec<(&'static str, Arc<dyn Mask>)> {
    vec![
        ("email", mask(&MaskWith::Email)),
        ("partial", mask(&MaskWith::Partial { first: 0, last: 4 })),
        ("partial both", mask(&MaskWith::Partial { first: 2, last: 4 })),
        ("partial greedy", mask(&MaskWith::Partial { first: 64, last: 64 })),
        ("redact", mask(&MaskWith::Redact)),
        ("hash", mask(&MaskWith::Hash { secret: None })),
        ("null", mask(&MaskWith::Null)),
        ("fixed", mask(&MaskWith::Fixed("n/a".to_owned()))),
    ]
}

fn of(mask: &dyn Mask, value: &[u8], type_id: u32, format: ValueFormat) -> Option<Vec<u8>> {
    let mut out = BytesMut::from(&b"before"[..]);
    match mask.apply(value, ValueType { type_id, format }, &mut out) {
        Applied::Written => Some(out.strip_prefix(b"before").expect("it appends").to_vec()),
        Applied::Null => {
            assert_eq!(&out[..], b"before", "nothing is appended for NULL");
            None
        }
    }
}

fn text(with: &MaskWith, value: &str) -> String {
    let mask = mask(with);
    let shown = of(&*mask, value.as_bytes(), oid::TEXT, ValueFormat::Text).expect("not NULL");
    let binary = of(&*mask, value.as_bytes(), oid::VARCHAR, ValueFormat::Binary).expect("not NULL");
    assert_eq!(shown, binary, "text travels alike in both formats");
    String::from_utf8(shown).expect("UTF-8")
}

#[test]
fn email_shows_an_initial_and_the_top_level() {
    for (clear, shown) in [
        ("alice@example.com", "a***@e***.com"),
        ("ab@example.com", "***@e***.com"),
        ("a@b.c", "***@***.***"),
        ("élodie@müller.fr", "é***@m***.fr"),
        ("\"a@b\"@example.com", "\"***@e***.com"),
        ("a.b@mail.example.co.uk", "a***@m***.uk"),
        ("alice@localhost", "***"),
        ("alice", "***"),
        ("", "***"),
        ("@example.com", "***"),
        ("alice@example.verylongdomain", "a***@e***.***"),
        ("call alice@example.com", "***"),
        ("alice@example.com   ", "a***@e***.com"),
    ] {
        assert_eq!(text(&MaskWith::Email, clear), shown, "{clear}");
    }
}

#[test]
fn partial_never_shows_more_than_a_third() {
    for (first, last, clear, shown) in [
        (0, 4, "4111111111111234", "***1234"),
        (0, 4, "123456", "***56"),
        (0, 4, "12", "***"),
        (0, 4, "", "***"),
        (2, 4, "4111111111111234", "4***1234"),
        (2, 0, "alice b.", "al***"),
        (64, 64, "abcdefghi", "***ghi"),
        (0, 1, "日本語", "***語"),
        (0, 4, "4111111111111234    ", "***1234"),
    ] {
        assert_eq!(text(&MaskWith::Partial { first, last }, clear), shown, "{clear}");
    }
}

#[test]
fn hash_is_stable_under_one_key_and_different_under_another() {
    let own = MaskWith::Hash { secret: None };
    let other = MaskWith::Hash { secret: Some(SecretBytes::new(vec![2; 32])) };
    assert_eq!(text(&own, "alice"), text(&own, "alice"));
    assert_ne!(text(&own, "alice"), text(&own, "bob"));
    assert_ne!(text(&own, "alice"), text(&other, "alice"));
    assert_eq!(text(&own, "alice").len(), 32);
    // RFC 4231, test case 2: key "Jefe", "what do ya want for nothing?".
    let jefe = hash::Hash::new(&SecretBytes::new(b"Jefe".to_vec()));
    let mut out = BytesMut::new();
    Transform::write(&jefe, "what do ya want for nothing?", &mut out);
    assert_eq!(&out[..], b"5bdcc146bf60754e6a042426089575c7");
    assert!(!format!("{jefe:?}").contains("Jefe"));
}

#[test]
fn the_same_hash_in_jsonb_text_and_binary() {
    let hash = mask(&MaskWith::Hash { secret: None });
    let as_text = of(&*hash, b"\"alice\"", oid::JSONB, ValueFormat::Text).unwrap();
    let binary = of(&*hash, b"\x01\"alice\"", oid::JSONB, ValueFormat::Binary).unwrap();
    assert_eq!(binary, [b"\x01", &as_text[..]].concat());
    let plain = of(&*hash, b"alice", oid::TEXT, ValueFormat::Text).unwrap();
    assert_eq!(as_text, [b"\"", &plain[..], b"\""].concat());
}

#[test]
fn types_without_a_text_form_give_null() {
    for (name, mask) in all() {
        for type_id in [17, 18, 20, 23, 142, 600, 1009, 1700, 2950] {
            let text = of(&*mask, b"12", type_id, ValueFormat::Text);
            assert_eq!(text, None, "{name} {type_id}");
            assert_eq!(of(&*mask, b"12", type_id, ValueFormat::Binary), None, "{name} {type_id}");
        }
        assert_eq!(of(&*mask, b"alice", 20_000, ValueFormat::Binary), None, "{name}: a layout that is not known");
    }
}

#[test]
fn what_is_not_utf_8_is_redacted() {
    for (name, mask) in all() {
        let shown = of(&*mask, b"alice\xff@example.com", oid::TEXT, ValueFormat::Text);
        match name {
            "null" => assert_eq!(shown, None),
            "fixed" => assert_eq!(shown.as_deref(), Some(&b"n/a"[..])),
            _ => assert_eq!(shown.as_deref(), Some(&b"***"[..]), "{name}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    // Values with asterisks could be found in the mask itself: they are left out.
    #[test]
    fn the_clear_value_is_never_shown(value in "[^*]{2,40}") {
        for (name, mask) in all() {
            for type_id in [oid::TEXT, 20_000] {
                let Some(shown) = of(&*mask, value.as_bytes(), type_id, ValueFormat::Text) else { continue };
                let shown = String::from_utf8(shown).expect("UTF-8");
                // A few hex digits may be in any hash.
                let by_chance = name == "hash" && value.len() < 8;
                prop_assert!(name == "fixed" || by_chance || !shown.contains(&value), "{name}: {value:?} gives {shown:?}");
            }
        }
    }

    #[test]
    fn a_likely_address_is_never_shown(local in "[a-z.]{1,8}", domain in "[a-z]{1,8}", top in "[a-z]{1,10}") {
        let shown = text(&MaskWith::Email, &format!("{local}@{domain}.{top}"));
        let (local_part, domain_part) = (format!("{local}@"), format!("@{domain}."));
        prop_assert!(local.len() < 2 || !shown.contains(&local_part));
        prop_assert!(!shown.contains(&domain_part));
    }

    #[test]
    fn any_bytes_of_any_type_give_valid_text(value in prop::collection::vec(any::<u8>(), 0..64), type_id in any::<u32>(), binary in any::<bool>()) {
        let format = if binary { ValueFormat::Binary } else { ValueFormat::Text };
        for (_, mask) in all() {
            for type_id in [type_id, oid::TEXT, oid::JSON, oid::JSONB] {
                if let Some(shown) = of(&*mask, &value, type_id, format) {
                    prop_assert!(std::str::from_utf8(&shown).is_ok());
                }
            }
        }
    }

    #[test]
    fn json_stays_json(value in "\\PC{0,30}", control in "[\\x00-\\x1f\"\\\\]{0,4}") {
        let mut clear = BytesMut::new();
        quote_json(&format!("{value}{control}"), &mut clear);
        for (_, mask) in all() {
            let Some(shown) = of(&*mask, &clear, oid::JSON, ValueFormat::Text) else { continue };
            let shown = String::from_utf8(shown).expect("UTF-8");
            let inner = shown.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).expect("a string");
            let mut characters = inner.chars();
            while let Some(character) = characters.next() {
                prop_assert!(character != '"' && character >= ' ', "{shown}");
                if character == '\\' {
                    let escaped = characters.next();
                    prop_assert!(matches!(escaped, Some('"' | '\\' | 'u')), "{shown}");
                }
            }
        }
    }
}

/// Run with `cargo test --release -p masking -- --ignored --nocapture speed`.
#[test]
#[ignore = "a measurement"]
fn speed_of_masks() {
    let values = (0..1_000).map(|n| format!("customer.{n}@example-{}.com", n % 7)).collect::<Vec<_>>();
    let bytes = values.iter().map(String::len).sum::<usize>();
    for (name, mask) in all() {
        let mut out = BytesMut::with_capacity(1 << 20);
        let start = Instant::now();
        for _ in 0..1_000 {
            out.clear();
            for value in &values {
                mask.apply(value.as_bytes(), ValueType { type_id: oid::TEXT, format: ValueFormat::Text }, &mut out);
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a measurement")]
        let rate = bytes as f64 * 1_000.0 / seconds / 1e6;
        println!("{name:16} {rate:8.0} MB/s  {:6.1} ns a value", seconds * 1e9 / 1e6);
    }
}
