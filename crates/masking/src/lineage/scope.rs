//! Names in scope, and what each could carry.
//!
//! Follows the server's rules (`parse_relation.c`, `parse_expr.c`): an unqualified name is a column of the
//! innermost query level that has one; failing that, a whole row. Where a name cannot be placed, it carries
//! everything that is in scope.

use crate::class::ClassSet;

/// Why a value is not a column whose origin the server names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is computed.
    Expression,
    /// It is part of a row as a whole.
    WholeRow,
    /// It goes through UNION, INTERSECT or EXCEPT, or a recursive query.
    SetOperation,
    /// It is a join column that USING or NATURAL may have merged.
    MergedColumn,
    /// It goes through VALUES.
    Values,
    /// It is an argument of a function in FROM.
    FromFunction,
    /// A name could not be placed.
    UnknownName,
    /// A view computes it, or its definition could not be followed.
    ViewComputes,
    /// The column is generated from others of its table.
    Generated,
    /// A function that is not known to be safe returns it.
    UnsafeFunction,
    /// The relation is not in the catalogue.
    UnknownRelation,
    /// The server's statistics hold samples of columns.
    Statistics,
    /// It would be written into a column that is not classified alike.
    Written,
    /// It would be kept, or sent, by a function that has effects beyond its result.
    Kept,
    /// It would go to a file or program on the server.
    ServerFile,
    /// It would get a new name, as a view's column or by renaming.
    NewName,
    /// Code that runs on the server and is not looked into.
    Code,
    /// It opens another way to data that is not classified.
    OtherWay,
    /// A cursor or prepared statement of which the gateway does not know the query.
    UnknownStored,
    /// A statement of the same batch changes what names mean.
    ChangedBefore,
    /// A statement or expression of a kind that is not known.
    UnknownKind,
    /// It takes too long to find out.
    TooComplex,
}

/// What a value could carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Taint {
    /// Classes, as an unchanged column whose origin the server names.
    pub(crate) direct: ClassSet,
    /// Classes, in any other way.
    pub(crate) computed: ClassSet,
    /// Why `computed` is not empty: the first reason met.
    pub(crate) why: Option<Why>,
    /// A column that it comes from.
    pub(crate) source: Option<(u32, i16)>,
}

impl Taint {
    pub(crate) const CLEAN: Self = Self { direct: ClassSet::EMPTY, computed: ClassSet::EMPTY, why: None, source: None };

    /// A value that could be anything.
    pub(crate) fn anything(why: Why) -> Self {
        Self { computed: ClassSet::ANYTHING, why: Some(why), ..Self::CLEAN }
    }

    pub(crate) fn is_clean(self) -> bool {
        self.direct.is_empty() && self.computed.is_empty()
    }

    /// All its classes.
    pub(crate) fn classes(self) -> ClassSet {
        self.direct | self.computed
    }

    /// Both together: the value could be the one or the other.
    #[must_use]
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            direct: self.direct | other.direct,
            computed: self.computed | other.computed,
            why: self.why.or(other.why),
            source: self.source.or(other.source),
        }
    }

    /// The value went through something that hides its origin.
    #[must_use]
    pub(crate) fn through(self, why: Why) -> Self {
        let computed = self.classes();
        let why = self.why.or((!computed.is_empty()).then_some(why));
        Self { direct: ClassSet::EMPTY, computed, why, source: self.source }
    }
}

/// A column in scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Col<'a> {
    /// Its name; `None`: it has one, but which is not certain.
    pub(crate) name: Option<&'a str>,
    pub(crate) taint: Taint,
    /// Its type's number; 0: not known.
    pub(crate) type_id: u32,
}

impl<'a> Col<'a> {
    pub(crate) fn new(name: Option<&'a str>, taint: Taint) -> Self {
        Self { name, taint, type_id: 0 }
    }
}

/// Columns of a relation, a sub-query, a result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Columns<'a> {
    pub(crate) list: Vec<Col<'a>>,
    /// There may be more, of unknown number, name and place, and this is what they carry.
    pub(crate) rest: Option<Taint>,
}

impl<'a> Columns<'a> {
    /// Columns of which nothing but what they carry is known.
    pub(crate) fn unknown(taint: Taint) -> Self {
        Self { list: Vec::new(), rest: Some(taint) }
    }

    /// What any of them could carry.
    pub(crate) fn all(&self) -> Taint {
        self.list.iter().fold(self.rest.unwrap_or_default(), |all, column| all.or(column.taint))
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.list.extend(other.list);
        if let Some(rest) = other.rest {
            self.rest = Some(self.rest.unwrap_or_default().or(rest));
        }
    }

    /// Every column goes through something that hides its origin.
    #[must_use]
    pub(crate) fn through(mut self, why: Why) -> Self {
        for column in &mut self.list {
            column.taint = column.taint.through(why);
        }
        self.rest = self.rest.map(|rest| rest.through(why));
        self
    }

    /// Gives the first columns new names, as an alias list does.
    #[must_use]
    pub(crate) fn renamed(mut self, names: &[&'a str]) -> Self {
        if names.is_empty() {
            return self;
        }
        if self.rest.is_some() {
            // Which column gets which name is not known.
            let all = self.all().through(Why::UnknownName);
            let named = names.iter().map(|name| Col::new(Some(name), all)).collect();
            return Self { list: named, rest: Some(all) };
        }
        for (column, name) in self.list.iter_mut().zip(names) {
            column.name = Some(name);
        }
        self
    }

    fn named<'c>(&'c self, name: &'c str) -> impl Iterator<Item = &'c Col<'a>> {
        self.list.iter().filter(move |column| column.name == Some(name))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.named(name).next().is_some()
    }

    /// What columns of unknown name carry; `None`: there are none.
    fn nameless(&self) -> Option<Taint> {
        let nameless = self.list.iter().filter(|column| column.name.is_none());
        nameless.map(|column| column.taint).chain(self.rest).reduce(Taint::or)
    }
}

/// A relation that can be named before a dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rel<'a> {
    pub(crate) name: &'a str,
    pub(crate) columns: Columns<'a>,
}

/// What FROM gives: columns by name (and for `*`), and relations for qualified names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct From<'a> {
    pub(crate) columns: Columns<'a>,
    pub(crate) relations: Vec<Rel<'a>>,
}

impl<'a> From<'a> {
    /// One relation under one name.
    pub(crate) fn one(name: &'a str, columns: Columns<'a>) -> Self {
        Self { columns: columns.clone(), relations: vec![Rel { name, columns }] }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.columns.add(other.columns);
        self.relations.extend(other.relations);
    }

    fn width(&self) -> usize {
        1 + self.columns.list.len() + self.relations.iter().map(|relation| 1 + relation.columns.list.len()).sum::<usize>()
    }

    fn all(&self) -> Taint {
        self.relations.iter().fold(self.columns.all(), |all, relation| all.or(relation.columns.all()))
    }
}

/// A common table expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cte<'a> {
    pub(crate) name: &'a str,
    pub(crate) columns: Columns<'a>,
}

/// A query level, within others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'s, 'a> {
    pub(crate) parent: Option<&'s Self>,
    pub(crate) ctes: &'s [Cte<'a>],
    pub(crate) from: &'s From<'a>,
}

/// Columns that every table has.
const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"];

impl<'s, 'a> Scope<'s, 'a> {
    /// How many columns a look-up may pass.
    pub(crate) fn width(&self) -> usize {
        self.levels().map(|level| level.from.width()).sum()
    }

    fn levels(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(*self), |scope| scope.parent.copied())
    }

    /// Everything that is in scope.
    pub(crate) fn everything(&self) -> Taint {
        self.levels().fold(Taint::CLEAN, |all, level| all.or(level.from.all()))
    }

    /// The innermost CTE of that name.
    pub(crate) fn cte(&self, name: &str) -> Option<&'s Cte<'a>> {
        self.levels().find_map(|level| level.ctes.iter().rev().find(|cte| cte.name == name))
    }

    /// What `name` carries, and its type.
    pub(crate) fn column(&self, name: &str) -> (Taint, u32) {
        let mut nameless: Option<Taint> = None;
        for level in self.levels() {
            let mut found = level.from.columns.named(name).peekable();
            if let Some(first) = found.peek() {
                let type_id = first.type_id;
                let taint = found.fold(Taint::CLEAN, |all, column| all.or(column.taint));
                let other = nameless.unwrap_or_default().through(Why::UnknownName);
                return (taint.or(other), if nameless.is_some() { 0 } else { type_id });
            }
            nameless = nameless.into_iter().chain(level.from.columns.nameless()).reduce(Taint::or);
        }
        let nameless_taint = nameless.unwrap_or_default().through(Why::UnknownName);
        for level in self.levels() {
            let mut rows = level.from.relations.iter().filter(|relation| relation.name == name).peekable();
            if rows.peek().is_some() {
                let row = rows.fold(Taint::CLEAN, |all, relation| all.or(relation.columns.all()));
                return (row.through(Why::WholeRow).or(nameless_taint), 0);
            }
        }
        if nameless.is_some() || SYSTEM_COLUMNS.contains(&name) {
            return (nameless_taint, 0);
        }
        // Not a column that we know. If the server knows it, it is a plain column of a table here, and the rules
        // refuse those that the catalogue does not have; if not, its own error is the best answer.
        let all = self.everything();
        (Taint { direct: all.classes(), ..all }, 0)
    }

    /// What `relation.name` carries, and its type. `qualified`: a schema stands before it, so that a relation
    /// further out may be meant.
    pub(crate) fn qualified_column(&self, relation: &str, name: &str, qualified: bool) -> (Taint, u32) {
        let mut found: Option<(Taint, u32)> = None;
        for level in self.levels() {
            for rel in level.from.relations.iter().filter(|rel| rel.name == relation) {
                let (taint, type_id) = of_relation(&rel.columns, name);
                found = Some(match found {
                    Some((other, _)) => (other.or(taint), 0),
                    None => (taint, type_id),
                });
            }
            if found.is_some() && !qualified {
                break;
            }
        }
        found.unwrap_or_else(|| (self.everything().through(Why::UnknownName), 0))
    }

    /// The columns of `relation.*`.
    pub(crate) fn star_of(&self, relation: &str, qualified: bool) -> Columns<'a> {
        let mut found: Vec<Columns<'a>> = Vec::new();
        for level in self.levels() {
            let rels = level.from.relations.iter().filter(|rel| rel.name == relation);
            found.extend(rels.map(|rel| rel.columns.clone()));
            if !found.is_empty() && !qualified {
                break;
            }
        }
        if found.len() == 1 {
            return found.pop().unwrap_or_default();
        }
        if found.is_empty() {
            return Columns::unknown(self.everything().through(Why::UnknownName));
        }
        let mut all = Columns::default();
        found.into_iter().for_each(|columns| all.add(columns));
        all.rest = Some(all.rest.unwrap_or_default());
        all
    }
}

/// `relation.name`: a column, a system column, or a function called in a column's clothes (`c.row_to_json`).
fn of_relation(columns: &Columns<'_>, name: &str) -> (Taint, u32) {
    let mut found = columns.named(name).peekable();
    if let Some(first) = found.peek() {
        let type_id = first.type_id;
        return (found.fold(Taint::CLEAN, |all, column| all.or(column.taint)), type_id);
    }
    if SYSTEM_COLUMNS.contains(&name) {
        return (Taint::CLEAN, 0);
    }
    (columns.all().through(Why::WholeRow), 0)
}
