//! What the configuration says: which columns hold which class of data, and what a class looks like masked.

use crate::class::CLASSES_MAX;
use crate::detect;
use crate::pattern::{ColumnPattern, FunctionPattern, fits};
use crate::transform;
use proxy_core::catalog::{Relation, RelationKind};
use proxy_core::{Catalog, Mask, SecretBytes};
use std::sync::Arc;

/// Most column patterns of one configuration, and most functions declared safe: each is tried on every column
/// (or call) when a catalogue is loaded.
pub const PATTERNS_MAX: usize = 10_000;
/// Shortest secret that keys a hash, in bytes.
pub const HASH_SECRET_MIN: usize = 16;

/// `[[classify]]`: columns that hold a class of data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classify {
    /// The class's name: `DataClass::"email"` in policies.
    pub class: String,
    /// `CONNECTION/SCHEMA.TABLE.COLUMN`, with the names as the server stores them; `*` stands for any run of
    /// characters within a part.
    pub columns: Vec<String>,
    /// A detector's name, see [`crate::detect::find`].
    pub detect: Option<String>,
}

/// Ways of masking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MaskWith {
    /// First character and top-level domain stay: `a***@e***.com`.
    Email,
    /// Some characters stay, never more than a third of the value.
    Partial {
        /// At the start.
        first: usize,
        /// At the end.
        last: usize,
    },
    /// Nothing stays: `***`.
    Redact,
    /// A keyed hash in hex: equal values stay equal, so that they can be joined and counted.
    Hash {
        /// The key; `None`: the gateway's own.
        secret: Option<SecretBytes>,
    },
    /// NULL.
    Null,
    /// This text, if it is a value of the column's type, else NULL.
    Fixed(String),
}

/// `[[mask]]`: what a class looks like to those who may not see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskSpec {
    /// The class.
    pub class: String,
    /// How.
    pub with: MaskWith,
}

/// One thing that is wrong with the rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct RuleProblem {
    /// What, naming the item.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl RuleProblem {
    fn new(what: String, remedy: impl Into<String>) -> Self {
        Self { what, remedy: remedy.into() }
    }
}

/// A class with its mask.
#[derive(Debug, Clone)]
pub(crate) struct Class {
    pub(crate) name: Arc<str>,
    pub(crate) mask: Arc<dyn Mask>,
    pub(crate) patterns: Vec<ColumnPattern>,
    detector: Option<&'static dyn detect::Detector>,
}

/// The mask rules of a gateway, checked.
#[derive(Debug, Clone, Default)]
pub struct MaskRules {
    pub(crate) classes: Arc<Vec<Class>>,
    pub(crate) safe_functions: Arc<Vec<FunctionPattern>>,
}

/// A column that looks sensitive by its name, and is not classified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspicious {
    /// `SCHEMA.TABLE.COLUMN`.
    pub column: String,
    /// The class that its name suggests.
    pub class: &'static str,
}

impl MaskRules {
    /// Checks `classify`, `masks` and `safe_functions` (`CONNECTION/SCHEMA.NAME` patterns of functions that do
    /// not return classified columns), and makes the masks. `hash_key` is the gateway's own key, for hashes without a
    /// secret of their own. A class without a mask is redacted.
    ///
    /// # Errors
    /// Everything that is wrong, each naming the bad item and the remedy.
    pub fn new(
        classify: &[Classify],
        masks: &[MaskSpec],
        safe_functions: &[String],
        hash_key: &SecretBytes,
    ) -> Result<Self, Vec<RuleProblem>> {
        let mut problems = Vec::new();
        let mut classes = classes(classify, &mut problems);
        bind(&mut classes, masks, hash_key, &mut problems);
        let mut functions = Vec::new();
        for text in safe_functions {
            match FunctionPattern::parse(text) {
                Some(pattern) => functions.push(pattern),
                None => problems.push(RuleProblem::new(
                    format!("safe_functions holds {text:?}"),
                    "write \"CONNECTION/SCHEMA.NAME\"; `*` stands for any run of characters within a part",
                )),
            }
        }
        let patterns = functions.len() + classes.iter().map(|class| class.patterns.len()).sum::<usize>();
        if patterns > PATTERNS_MAX {
            problems.push(RuleProblem::new(
                format!("there are {patterns} patterns of columns and functions, at most {PATTERNS_MAX} are allowed"),
                "use `*` to name many with one pattern",
            ));
        }
        if problems.is_empty() {
            Ok(Self { classes: Arc::new(classes), safe_functions: Arc::new(functions) })
        } else {
            Err(problems)
        }
    }

    /// Whether some pattern is about `connection`: if not, nothing of it is ever masked.
    #[must_use]
    pub fn covers(&self, connection: &str) -> bool {
        self.classes.iter().flat_map(|class| &class.patterns).any(|pattern| fits(&pattern.connection, connection))
    }

    /// Names of all classes, in the order of the configuration.
    pub fn classes(&self) -> impl Iterator<Item = &str> {
        self.classes.iter().map(|class| &*class.name)
    }

    /// The content detector of a class.
    #[must_use]
    pub fn detector(&self, class: &str) -> Option<&'static dyn detect::Detector> {
        self.classes.iter().find(|one| &*one.name == class)?.detector
    }

    /// Patterns about `connection` that fit no column of its catalogue: `(class, pattern)`.
    #[must_use]
    pub fn unmatched(&self, connection: &str, catalog: &Catalog) -> Vec<(String, String)> {
        let mut list = Vec::new();
        for class in self.classes.iter() {
            for pattern in class.patterns.iter().filter(|pattern| fits(&pattern.connection, connection)) {
                let matches = |relation: &Relation| {
                    pattern.fits_table(connection, &relation.schema, &relation.name)
                        && relation.columns.iter().any(|column| fits(&pattern.column, &column.name))
                };
                if !catalog.relations().iter().any(matches) {
                    let ColumnPattern { connection, schema, table, column } = pattern;
                    list.push((class.name.to_string(), format!("{connection}/{schema}.{table}.{column}")));
                }
            }
        }
        list
    }

    /// Columns of tables that look sensitive by their name, and are not classified.
    #[must_use]
    pub fn suspicious_columns(&self, connection: &str, catalog: &Catalog) -> Vec<Suspicious> {
        let mut list = Vec::new();
        for relation in catalog.relations().iter().filter(|relation| holds_data(relation)) {
            for column in &relation.columns {
                let Some(class) = suggested_class(&column.name) else { continue };
                let classified = self.classes.iter().flat_map(|class| &class.patterns).any(|pattern| {
                    pattern.fits_table(connection, &relation.schema, &relation.name) && fits(&pattern.column, &column.name)
                });
                if !classified {
                    list.push(Suspicious { column: format!("{}.{}.{}", relation.schema, relation.name, column.name), class });
                }
            }
        }
        list
    }
}

fn holds_data(relation: &Relation) -> bool {
    let kind = match relation.kind {
        RelationKind::Table | RelationKind::ForeignTable | RelationKind::MaterializedView => true,
        RelationKind::View | RelationKind::Sequence | RelationKind::Composite => false,
    };
    kind && !matches!(relation.schema.as_str(), "pg_catalog" | "information_schema" | "pg_toast")
}

/// The class that a column's name suggests.
#[must_use]
pub fn suggested_class(column: &str) -> Option<&'static str> {
    // Whole words, so that `shipping` is not a PIN and `emailed_at` not an address.
    const WORDS: [(&str, &[&str]); 8] = [
        ("email", &["email", "mail", "emailaddress", "mailaddress"]),
        ("card", &["card", "cardnumber", "ccnumber", "ccnum", "pan", "creditcard", "cvv", "cvc"]),
        ("iban", &["iban", "bic", "accountnumber", "bankaccount"]),
        ("ssn", &["ssn", "socialsecurity", "nationalid", "taxid", "passport", "nin"]),
        ("phone", &["phone", "phonenumber", "mobile", "msisdn", "telephone", "tel", "fax"]),
        ("birth", &["birth", "birthdate", "birthday", "dob", "dateofbirth"]),
        ("secret", &["password", "passwd", "pwd", "passwordhash", "token", "secret", "apikey", "privatekey", "pin", "otp"]),
        ("address", &["street", "streetaddress", "postaladdress"]),
    ];
    const NOT_VALUES: [&str; 8] = ["id", "at", "type", "verified", "count", "enabled", "status", "expires"];
    let words = words(column);
    if words.last().is_some_and(|last| words.len() > 1 && NOT_VALUES.contains(&last.as_str())) {
        return None;
    }
    // `e_mail`, `credit_card`, `date_of_birth`: neighbouring words together.
    let together = (0..words.len()).flat_map(|from| (from + 1..=words.len()).map(move |to| (from, to)));
    let joined = together.filter_map(|(from, to)| words.get(from..to)).map(<[String]>::concat).collect::<Vec<_>>();
    WORDS.iter().find(|(_, names)| joined.iter().any(|word| names.contains(&word.as_str()))).map(|(class, _)| *class)
}

/// A column's name as words in lower case: `eMail`, `e_mail` and `E-Mail` are `e mail`. At most eight.
fn words(name: &str) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    let mut lower_before = false;
    let mut new = true;
    for character in name.chars() {
        if !character.is_alphanumeric() {
            new = true;
            continue;
        }
        if new || (character.is_uppercase() && lower_before) {
            list.push(String::new());
            new = false;
        }
        lower_before = character.is_lowercase();
        if let Some(word) = list.last_mut() {
            word.extend(character.to_lowercase());
        }
    }
    list.truncate(8);
    list
}

fn classes(classify: &[Classify], problems: &mut Vec<RuleProblem>) -> Vec<Class> {
    let mut list: Vec<Class> = Vec::new();
    for item in classify {
        if item.class.is_empty() {
            problems.push(RuleProblem::new("a [[classify]] has an empty class".to_owned(), "name the class"));
            continue;
        }
        if item.columns.is_empty() {
            let what = format!("class {:?} has no columns", item.class);
            problems.push(RuleProblem::new(what, "list them, or remove the [[classify]]"));
        }
        let at = list.iter().position(|class| *class.name == item.class).unwrap_or_else(|| {
            let name: Arc<str> = item.class.as_str().into();
            list.push(Class { mask: transform::redact(name.clone()), name, patterns: Vec::new(), detector: None });
            list.len() - 1
        });
        let Some(class) = list.get_mut(at) else { continue };
        for text in &item.columns {
            match ColumnPattern::parse(text) {
                Some(pattern) => class.patterns.push(pattern),
                None => problems.push(RuleProblem::new(
                    format!("class {:?}: columns holds {text:?}", item.class),
                    "write \"CONNECTION/SCHEMA.TABLE.COLUMN\"; `*` stands for any run of characters within a part",
                )),
            }
        }
        let Some(name) = &item.detect else { continue };
        match detect::find(name) {
            Some(detector) => class.detector = Some(detector),
            None => problems.push(RuleProblem::new(
                format!("class {:?}: there is no detector {name:?}", item.class),
                format!("use one of {}", detect::names().collect::<Vec<_>>().join(", ")),
            )),
        }
    }
    if list.len() > CLASSES_MAX {
        problems.push(RuleProblem::new(
            format!("there are {} classes, at most {CLASSES_MAX} are allowed", list.len()),
            "put columns that are seen by the same people into one class",
        ));
    }
    list
}

fn bind(classes: &mut [Class], masks: &[MaskSpec], hash_key: &SecretBytes, problems: &mut Vec<RuleProblem>) {
    let mut bound: Vec<&str> = Vec::new();
    for spec in masks {
        if bound.contains(&spec.class.as_str()) {
            let what = format!("class {:?} has two [[mask]]s", spec.class);
            problems.push(RuleProblem::new(what, "keep one"));
            continue;
        }
        bound.push(&spec.class);
        let Some(class) = classes.iter_mut().find(|class| *class.name == spec.class) else {
            let what = format!("[[mask]] names the class {:?}, which no [[classify]] has", spec.class);
            problems.push(RuleProblem::new(what, "add a [[classify]] for it, or remove this"));
            continue;
        };
        if let MaskWith::Hash { secret } = &spec.with {
            let key = secret.as_ref().unwrap_or(hash_key);
            if key.expose().len() < HASH_SECRET_MIN {
                problems.push(RuleProblem::new(
                    format!("the secret of class {:?}'s hash is shorter than {HASH_SECRET_MIN} bytes", spec.class),
                    "use a random one: `head -c 32 /dev/urandom | base64`",
                ));
                continue;
            }
        }
        class.mask = transform::build(class.name.clone(), &spec.with, hash_key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy_core::catalog::Column;

    fn key() -> SecretBytes {
        SecretBytes::new(vec![7; 32])
    }

    fn classify(class: &str, columns: &[&str]) -> Classify {
        Classify { class: class.to_owned(), columns: columns.iter().map(|&text| text.to_owned()).collect(), detect: None }
    }

    fn problems(classify: &[Classify], masks: &[MaskSpec], functions: &[&str]) -> Vec<RuleProblem> {
        let functions = functions.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        MaskRules::new(classify, masks, &functions, &key()).expect_err("they are wrong")
    }

    #[test]
    fn problems_name_the_item_and_the_remedy() {
        let email = classify("email", &["c/public.t.email"]);
        let one = |classify: &[Classify], masks: &[MaskSpec], functions: &[&str]| {
            let list = problems(classify, masks, functions);
            assert_eq!(list.len(), 1, "{list:?}");
            list[0].to_string()
        };
        assert!(one(&[classify("email", &["public.t.email"])], &[], &[]).contains("\"public.t.email\""));
        let detect = Classify { detect: Some("emial".to_owned()), ..email.clone() };
        assert!(one(&[detect], &[], &[]).contains("use one of email, card"));
        let spec = |class: &str, with| MaskSpec { class: class.to_owned(), with };
        assert!(one(std::slice::from_ref(&email), &[spec("card", MaskWith::Null)], &[]).contains("no [[classify]]"));
        let twice = [spec("email", MaskWith::Null), spec("email", MaskWith::Redact)];
        assert!(one(std::slice::from_ref(&email), &twice, &[]).contains("two [[mask]]s"));
        assert!(one(std::slice::from_ref(&email), &[], &["public.f"]).contains("safe_functions"));
        let short = MaskWith::Hash { secret: Some(SecretBytes::new(vec![1; 4])) };
        let text = one(&[email], &[spec("email", short)], &[]);
        assert!(text.contains("shorter than 16 bytes") && !text.contains("01"), "{text}");
        let many = (0..200).map(|n| classify(&format!("c{n}"), &["c/a.b.c"])).collect::<Vec<_>>();
        assert!(one(&many, &[], &[]).contains("at most 127"));
    }

    #[test]
    fn names_that_look_sensitive() {
        for (name, class) in [
            ("email", "email"),
            ("e_mail", "email"),
            ("contactEmail", "email"),
            ("E-Mail", "email"),
            ("cc_number", "card"),
            ("credit_card", "card"),
            ("date_of_birth", "birth"),
            ("ssn", "ssn"),
            ("password_hash", "secret"),
            ("api_key", "secret"),
            ("phone2", "phone"),
        ] {
            let got = suggested_class(name);
            if name == "phone2" {
                // A digit belongs to the word: better to say nothing than to guess.
                assert_eq!(got, None);
            } else {
                assert_eq!(got, Some(class), "{name}");
            }
        }
        for name in ["shipping", "company", "emailed_at", "email_verified", "card_id", "id", "", "discard", "panel"] {
            assert_eq!(suggested_class(name), None, "{name}");
        }
    }

    #[test]
    fn reports_patterns_without_columns_and_columns_without_patterns() {
        let column = |number, name: &str| Column { number, name: name.to_owned(), type_id: 25, generated: false };
        let table = Relation {
            oid: 20_000,
            schema: "public".to_owned(),
            name: "customers".to_owned(),
            kind: RelationKind::Table,
            columns: vec![column(1, "email"), column(2, "phone"), column(3, "name")],
            definition: None,
            parents: Vec::new(),
        };
        let catalog = Catalog::new(1, 150_000, vec!["public".to_owned()], vec![table], Vec::new());
        let list = [classify("email", &["c/public.customers.email", "c/public.customers.emial", "d/x.y.z"])];
        let rules = MaskRules::new(&list, &[], &[], &key()).unwrap();
        assert_eq!(rules.unmatched("c", &catalog), [("email".to_owned(), "c/public.customers.emial".to_owned())]);
        let found = rules.suspicious_columns("c", &catalog);
        assert_eq!(found, [Suspicious { column: "public.customers.phone".to_owned(), class: "phone" }]);
        assert!(rules.covers("c") && rules.covers("d") && !rules.covers("e"));
    }
}
