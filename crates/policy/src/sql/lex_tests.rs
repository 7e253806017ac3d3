//! The lexer beside the server's own scanner.

use super::lex::{Kind, LexError, Lexer, Token};
use super::parser::{parse, scan};
use pg_query::ParserOptions;
use proptest::prelude::*;

fn tokens(text: &str) -> Result<Vec<Token>, LexError> {
    let mut lexer = Lexer::new(text.as_bytes());
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next_token()? {
        tokens.push(token);
    }
    Ok(tokens)
}

/// Where the server's tokens begin and end, without comments. `None`: it refuses the text.
fn theirs(text: &str) -> Option<Vec<(usize, usize)>> {
    scan(text).map(|tokens| tokens.into_iter().filter(|(_, _, comment)| !comment).map(|(start, end, _)| (start, end)).collect())
}

/// Every token of ours begins and ends where one of theirs does, and what is between the two is one of theirs,
/// save that a run of symbols may be several, and that the N of N'…' is one of theirs.
fn compare(text: &str) {
    // They refuse more: escapes that make no character, zero-length names.
    let Some(theirs) = theirs(text) else { return };
    let ours = match tokens(text) {
        Ok(ours) => ours,
        // Characters that begin no token are tokens of their own to the server, in which its grammar has no use.
        // Version 14 and libpg_query read `$1a` as `$1 a`; later servers refuse it.
        Err(LexError::Junk) if text.contains('$') => return,
        Err(error) => return assert!(parse(text, ParserOptions::DEFAULT).is_err(), "{text:?}: {error}"),
    };
    let mut at = theirs.iter().peekable();
    for token in ours {
        let &(start, mut end) = at.next().unwrap_or_else(|| panic!("{text:?}: {token:?} is too many"));
        assert_eq!(start, token.start, "{text:?}: {token:?}");
        while end < token.end && matches!(token.kind, Kind::Symbols | Kind::NationalString) {
            let &(next, to) = at.next().unwrap_or_else(|| panic!("{text:?}: {token:?} is too long"));
            assert_eq!(next, end, "{text:?}: {token:?}");
            end = to;
        }
        assert_eq!(end, token.end, "{text:?}: {token:?}, to the server {start}..{end}");
    }
    assert_eq!(at.next(), None, "{text:?}: too few tokens");
}

/// Statements whose tokens are hard to tell.
const AWKWARD: [&str; 74] = [
    "",
    " ",
    ";;",
    "select 1",
    "SELECT 'a''b', 'a' 'b'",
    "SELECT 'a'\n'b'",
    "SELECT 'a' -- x\n'b'",
    "SELECT 'a' -- x\n -- y\n 'b' 'c'",
    "SELECT 'a' /* x */ 'b'",
    "SELECT 'a'\n/* x */ 'b'",
    "SELECT 'a'\n -- x",
    "SELECT 'a'\x0b\n'b'",
    "SELECT E'a\\'b', E'\\\\', E'a''b'",
    "SELECT e'a\\\nb'\n'c\\'d'",
    "SELECT 'a\\', 'b'",
    "SELECT B'01', b'01'\n'1', X'aF', x'a'",
    "SELECT B'0''1'",
    "SELECT N'a', n'b'\n'c'",
    "SELECT U&'a\\0041', u&'a''b' UESCAPE '!'",
    "SELECT U&\"a\\0041\", u&\"a\"\"b\" UESCAPE '!'",
    "SELECT u & 'a', u&1",
    "SELECT $$a$$, $a$ $$ $b$ $a$, $ä$x$ä$",
    "SELECT $a1$ $a$ $a1$",
    "SELECT a$b$c, a$1, a$$",
    "SELECT $1, $22 + $3",
    "SELECT \"a\"\"b\".\"c\", \"\u{1}\"",
    "SELECT a.b.c, a . b, a.*",
    "SELECT 1, 1.5, .5, 1., 1e5, 1E-5, 1.5e+10, 0x1F, 0o17, 0b101, 1_000, 0x_ff",
    "SELECT 1..2, 1 .. 2, 1...2",
    "SELECT a[1:2], a[:], a[1 : .5]",
    "SELECT 2147483647, 2147483648, 99999999999999999999",
    "SELECT a::text, a :: text, a:=1, a=>1, a=-1, a<>-1, a!=b",
    "SELECT 1+-1, 1 - -1, @-1, a@-b, ~-1, a<->b, a->>'x', a#>>b",
    "SELECT 1--1",
    "SELECT 1-/* x */-1, 2*/* x */3, 4+--x\n5",
    "SELECT a/b, a//b, a*/b",
    "SELECT a||b, a|/b, a?b, a?|b, a?&b, a@>b, a<@b, a&&b, a`b",
    "SELECT /* a /* b */ c */ 1",
    "SELECT /* 'a */ 1 /* \" */",
    "SELECT -- 'a\n1 -- \"",
    "SELECT 'a--b', '/* a */', \"--\", $$--$$",
    "SELECT \u{e4}\u{f6}, '\u{1f600}', \"\u{fc}\", \u{4e2d}\u{6587}1",
    "SELECT\t1\n\r\x0c\x0b2",
    "SELECT (((1)))[1](2);",
    "SELECT e, b, x, n, u, e1, b'1', x1",
    "SELECT 'a'e, 'a'E'b', 'a'B'1'",
    "SELECT * FROM t WHERE a='x'AND b='y'OR c=1",
    "INSERT INTO t VALUES('a',1,$1,NULL)",
    "SELECT 1 /",
    "SELECT 1 -",
    "SELECT 1 -- no end",
    "SELECT a /**/ /***/ /*/**/*/ b",
    "SELECT /*/ 1 /*/ */ */ 2",
    "SELECT 'it''s' ''",
    "SELECT ''''''",
    "SELECT E'' '' E'\\'''",
    "SELECT x'' '' b''''",
    "SELECT $_$ $_$, $A_1$x$A_1$",
    "SELECT $a$ $a $a$",
    "SELECT a.1, a.1.b",
    "SELECT 1.e5, 1.e, 1e+, 1.5.5",
    "SELECT 0x1.5, 0xg, 0b2, 0o8, 09",
    "SELECT 1_, 1__0, _1, 1._5",
    "SELECT 1a, $1a, 1.5a, 1e5a, 0x1g",
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN RETURN $$x$$; END $f$",
    "SELECT 'a'\r'b'",
    "SELECT 'a'\r\n'b'",
    "SELECT \"a\" \"b\", \"a\"\"b\"\"\"",
    "SELECT a AS \"select\", select AS a",
    "SELECT @ # ^ & | ` ? ! ~",
    "SELECT +-*/%<>=~!@#^&|`?+",
    "SELECT +-+-, *-, *+-, <--1",
    "SELECT \"\"",
    "SELECT U&'\\'",
];

#[test]
fn tokens_end_where_the_servers_do() {
    for text in AWKWARD {
        compare(text);
    }
}

#[test]
fn what_the_server_refuses_is_refused() {
    for text in
        ["SELECT 'a", "SELECT \"a", "SELECT /* /* */", "SELECT $a$x$b$", "SELECT 1a", "SELECT 0x", "SELECT B'1", "SELECT E'a\\'"]
    {
        assert!(tokens(text).is_err(), "{text}");
        assert!(scan(text).is_none(), "{text}");
    }
}

/// Pieces that make trouble next to each other.
fn piece() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "'",
        "''",
        "\"",
        "\"\"",
        "$",
        "$$",
        "$a$",
        "$1",
        "E'",
        "e'",
        "B'",
        "X'",
        "N'",
        "n'",
        "U&'",
        "U&\"",
        "u&",
        "--",
        "/*",
        "*/",
        "/",
        "*",
        "-",
        "+",
        "\n",
        "\r",
        " ",
        "\t",
        "\\",
        "\\'",
        ".",
        "..",
        ":",
        "::",
        ":=",
        "=>",
        "1",
        "0x",
        "0x1f",
        "1e",
        "1e5",
        ".5",
        "1.",
        "1_0",
        "_",
        "a",
        "select",
        "e",
        "b",
        "\u{e4}",
        "@",
        "?",
        "<",
        ">",
        "=",
        "!",
        "~",
        "(",
        ")",
        "[",
        "]",
        ",",
        ";",
        "UESCAPE '!'",
        "%",
    ]);
    fixed.prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20_000) })]

    #[test]
    fn any_text_has_the_servers_tokens(pieces in prop::collection::vec(piece(), 0..14)) {
        compare(&pieces.concat());
        compare(&format!("SELECT {}", pieces.concat()));
    }

    #[test]
    fn any_characters_have_the_servers_tokens(text in "[ -~\\n\u{e4}]{0,24}") {
        compare(&text);
    }
}

/// PostgreSQL's own regression statements, where SALLYPORT_REGRESS says that they are.
#[test]
fn tokens_of_postgresqls_regression_statements_end_where_the_servers_do() {
    let Some(folder) = std::env::var_os("SALLYPORT_REGRESS") else {
        eprintln!("skipped: SALLYPORT_REGRESS does not name the folder of PostgreSQL's regression statements");
        return;
    };
    let mut compared = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap_or_default();
        for statement in text.split_inclusive(";\n") {
            compare(statement);
            compared += 1;
        }
    }
    assert!(compared > 20_000, "only {compared}");
}
