//! A set of policies: loaded from a folder, validated, digested, compared with the one before.

use crate::approval::{Annotations, ApprovalTerms};
use crate::limits::{POLICIES_MAX, POLICY_FILE_MAX};
use crate::problem::{LoadError, Problem, ProblemKind, line_and_column};
use crate::reads::Reads;
use crate::schema::{ActionSet, ParsedSchema};
use cedar_policy::{
    ActionConstraint, Effect, EntityUid, Policy, PolicyId, PrincipalConstraint, ResourceConstraint, ValidationMode, Validator,
};
use miette::Diagnostic;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// One policy of a set.
#[derive(Debug, Clone)]
pub struct LoadedPolicy {
    /// Its `@id`; else `FILE#NUMBER` (the file's name without `.cedar`, numbered from 1).
    pub id: Arc<str>,
    /// Whether it forbids; else it permits.
    pub forbids: bool,
    /// The file that it is in.
    pub file: PathBuf,
    /// Its first line, from 1.
    pub line: usize,
    /// Its text, as written.
    pub text: String,
    /// Its `@description`.
    pub description: Option<String>,
    /// Its `@remedy`: what a caller whom it refuses can do.
    pub remedy: Option<String>,
    /// What its `@approval` asks for. `None`: it does not hold, it forbids.
    pub approval: Option<ApprovalTerms>,
    /// What it reads.
    pub reads: Reads,
    pub(crate) cedar: Policy,
    pub(crate) actions: ActionSet,
    pub(crate) principal: PrincipalConstraint,
    pub(crate) resource: ResourceConstraint,
    canonical: String,
}

/// A validated set of policies.
#[derive(Debug)]
pub struct PolicySet {
    policies: Vec<LoadedPolicy>,
    by_id: BTreeMap<Arc<str>, usize>,
    digest: String,
    version: Arc<str>,
    reads: Reads,
    reads_time: bool,
    warnings: Vec<Problem>,
    pub(crate) schema: Arc<ParsedSchema>,
}

impl PolicySet {
    /// Loads every `*.cedar` file of the folder `dir`, in the order of their names.
    ///
    /// # Errors
    /// Everything that is wrong with them. A folder without any such file is an error: it would deny
    /// everything, and is more likely a mistaken path. (A file with a comment alone says that it is meant.)
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        Self::parse(read_folder(dir)?)
    }

    /// The set made of `files`, each a name and its text.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn parse(files: impl IntoIterator<Item = (PathBuf, String)>) -> Result<Self, LoadError> {
        let schema = ParsedSchema::embedded().map_err(|error| {
            let message = format!("the built-in schema does not parse: {error}");
            LoadError::one(Problem::in_file(ProblemKind::Schema, Path::new("sallyport.cedarschema"), message, "report this"))
        })?;
        let mut loader = Loader { schema: &schema, policies: Vec::new(), problems: Vec::new(), warnings: Vec::new() };
        let files: Vec<(PathBuf, String)> = files.into_iter().collect();
        for (file, text) in &files {
            loader.file(file, text);
        }
        loader.unique_ids();
        loader.validate(&files);
        let Loader { mut policies, problems, warnings, .. } = loader;
        if policies.len() > POLICIES_MAX {
            let message = format!("{} policies, more than {POLICIES_MAX}", policies.len());
            return Err(LoadError::one(Problem::in_file(ProblemKind::LimitExceeded, Path::new(""), message, "merge some")));
        }
        if !problems.is_empty() {
            return Err(LoadError { problems });
        }
        policies.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(Self::assemble(policies, warnings, Arc::new(schema)))
    }

    fn assemble(policies: Vec<LoadedPolicy>, warnings: Vec<Problem>, schema: Arc<ParsedSchema>) -> Self {
        let digest = digest(&policies);
        let version = Arc::from(digest.get(..16).unwrap_or(&digest));
        let by_id = policies.iter().enumerate().map(|(at, policy)| (policy.id.clone(), at)).collect();
        let mut reads = Reads::default();
        policies.iter().for_each(|policy| reads.merge(&policy.reads));
        let reads_time = reads.context("hour") || reads.context("weekday");
        Self { policies, by_id, digest, version, reads, reads_time, warnings, schema }
    }

    /// The policies, sorted by id.
    #[must_use]
    pub fn policies(&self) -> &[LoadedPolicy] {
        &self.policies
    }

    /// The policy with this id.
    #[must_use]
    pub fn policy(&self, id: &str) -> Option<&LoadedPolicy> {
        self.by_id.get(id).and_then(|at| self.policies.get(*at))
    }

    /// SHA-256 of the set, hexadecimal, 64 digits. Comments, layout and the division into files do not
    /// change it.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The digest's first 16 digits: what decisions carry.
    #[must_use]
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// What its policies read.
    #[must_use]
    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// Whether they read the time: asked for each decision.
    pub(crate) fn reads_time(&self) -> bool {
        self.reads_time
    }

    /// What Cedar finds odd but not wrong, such as a condition that can never hold.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// What changed since `old`, in lines: `+ id`, `- id`, `~ id`, sorted by id.
    #[must_use]
    pub fn difference(&self, old: &Self) -> Vec<String> {
        let mut lines: Vec<(&str, char)> = Vec::new();
        for policy in &self.policies {
            match old.policy(&policy.id) {
                None => lines.push((&policy.id, '+')),
                Some(before) if before.canonical != policy.canonical => lines.push((&policy.id, '~')),
                Some(_) => {}
            }
        }
        lines.extend(old.policies.iter().filter(|policy| self.policy(&policy.id).is_none()).map(|policy| (&*policy.id, '-')));
        lines.sort_unstable();
        lines.into_iter().map(|(id, sign)| format!("{sign} {id}")).collect()
    }
}

/// SHA-256 over ids and canonical texts, each with its length, so that no two sets share one.
fn digest(policies: &[LoadedPolicy]) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for policy in policies {
        for part in [&*policy.id, &policy.canonical] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
    }
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_folder(dir: &Path) -> Result<Vec<(PathBuf, String)>, LoadError> {
    let unreadable = |path: &Path, error: &std::io::Error| {
        let remedy = "it must be a folder of *.cedar files that the gateway's user can read";
        Problem::in_file(ProblemKind::Unreadable, path, format!("cannot be read: {error}"), remedy)
    };
    let listing = std::fs::read_dir(dir).map_err(|error| LoadError::one(unreadable(dir, &error)))?;
    let mut paths = Vec::new();
    for entry in listing {
        let path = entry.map_err(|error| LoadError::one(unreadable(dir, &error)))?.path();
        if path.extension().is_some_and(|extension| extension == "cedar") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        let remedy = "write one, or run `sallyport init` for a set to start from";
        let message = "there is no *.cedar file here: nothing would be permitted";
        return Err(LoadError::one(Problem::in_file(ProblemKind::Unreadable, dir, message, remedy)));
    }
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        match read_file(&path) {
            Ok(Some(text)) => files.push((path, text)),
            Ok(None) => {
                let message = format!("longer than {POLICY_FILE_MAX} bytes");
                problems.push(Problem::in_file(ProblemKind::LimitExceeded, &path, message, "split the file"));
            }
            Err(error) => problems.push(unreadable(&path, &error)),
        }
    }
    if problems.is_empty() { Ok(files) } else { Err(LoadError { problems }) }
}

/// The file's text; `None` if it is too long.
fn read_file(path: &Path) -> std::io::Result<Option<String>> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(POLICY_FILE_MAX + 1).read_to_string(&mut text)?;
    Ok((text.len() as u64 <= POLICY_FILE_MAX).then_some(text))
}

struct Loader<'a> {
    schema: &'a ParsedSchema,
    policies: Vec<LoadedPolicy>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Loader<'_> {
    fn file(&mut self, file: &Path, text: &str) {
        let parsed = match cedar_policy::PolicySet::from_str(text) {
            Ok(parsed) => parsed,
            Err(errors) => {
                for error in errors.iter() {
                    self.problems.push(diagnosed(ProblemKind::Syntax, file, text, error));
                }
                return;
            }
        };
        for template in parsed.templates() {
            let (line, column) = line_and_column(text, template.as_ref().loc().map_or(0, |loc| loc.start()));
            let message = "this policy has a slot (?principal or ?resource)".to_owned();
            let remedy = "name the principal and the resource, or write conditions".to_owned();
            self.problems.push(Problem { kind: ProblemKind::Template, file: file.to_owned(), line, column, message, remedy });
        }
        let mut policies: Vec<(usize, &Policy)> =
            parsed.policies().map(|policy| (policy.as_ref().loc().map_or(0, |loc| loc.start()), policy)).collect();
        policies.sort_by_key(|(offset, _)| *offset);
        for (number, (offset, policy)) in policies.into_iter().enumerate() {
            let (line, column) = line_and_column(text, offset);
            match self.policy(file, line, number + 1, policy) {
                Ok(loaded) => self.policies.push(loaded),
                Err((kind, message, remedy)) => {
                    let (message, remedy) = (message.into_owned(), remedy.into_owned());
                    self.problems.push(Problem { kind, file: file.to_owned(), line, column, message, remedy });
                }
            }
        }
    }

    fn policy(&self, file: &Path, line: usize, number: usize, policy: &Policy) -> Result<LoadedPolicy, Complaint> {
        let mut id = None;
        let (mut description, mut remedy, mut approval) = (None, None, Annotations::default());
        for (name, value) in policy.annotations() {
            match name {
                "id" if !value.trim().is_empty() => id = Some(value.trim().to_owned()),
                "description" => description = Some(value.to_owned()),
                "remedy" => remedy = Some(value.to_owned()),
                _ if approval.take(name, value) => {}
                _ => return Err(odd_annotation(name)),
            }
        }
        let approval = approval.terms().map_err(|(message, remedy)| (ProblemKind::Annotation, message, remedy))?;
        let stem = file.file_stem().map_or_else(|| "policy".into(), |stem| stem.to_string_lossy());
        let id: Arc<str> = id.unwrap_or_else(|| format!("{stem}#{number}")).into();
        let json = policy.to_json().map_err(|error| {
            (ProblemKind::Syntax, format!("it has no JSON form: {error}").into(), "write it in another way".into())
        })?;
        let forbids = policy.effect() == Effect::Forbid;
        let reads = Reads::of(&json);
        check_approval(forbids, approval.is_some(), &reads)?;
        let cedar = policy.new_id(PolicyId::new(&*id));
        Ok(LoadedPolicy {
            forbids,
            file: file.to_owned(),
            line,
            text: policy.to_string(),
            description,
            remedy,
            approval,
            reads,
            actions: self.actions(&policy.action_constraint()),
            principal: policy.principal_constraint(),
            resource: policy.resource_constraint(),
            canonical: json.to_string(),
            cedar,
            id,
        })
    }

    /// The actions that the scope can match.
    fn actions(&self, constraint: &ActionConstraint) -> ActionSet {
        let members = |uid: &EntityUid| self.schema.members.get(uid.id().unescaped()).copied();
        let listed: Vec<&EntityUid> = match constraint {
            ActionConstraint::Any => return ActionSet::ALL,
            ActionConstraint::Eq(uid) => vec![uid],
            ActionConstraint::In(uids) => uids.iter().collect(),
        };
        // A name that the schema does not have is a problem of its own; until then it matches everything.
        listed.into_iter().fold(ActionSet::default(), |all, uid| all.union(members(uid).unwrap_or(ActionSet::ALL)))
    }

    fn unique_ids(&mut self) {
        let mut first: BTreeMap<Arc<str>, (PathBuf, usize)> = BTreeMap::new();
        for policy in &self.policies {
            let Some((file, line)) = first.get(&policy.id) else {
                first.insert(policy.id.clone(), (policy.file.clone(), policy.line));
                continue;
            };
            self.problems.push(Problem {
                kind: ProblemKind::DuplicateId,
                file: policy.file.clone(),
                line: policy.line,
                column: 1,
                message: format!("the id \"{}\" is taken by the policy at {}:{line}", policy.id, file.display()),
                remedy: "give one of them another @id".to_owned(),
            });
        }
    }

    fn validate(&mut self, files: &[(PathBuf, String)]) {
        let mut set = cedar_policy::PolicySet::new();
        for policy in &self.policies {
            // A duplicate is a problem already.
            let _ = set.add(policy.cedar.clone());
        }
        let result = Validator::new(self.schema.schema.clone()).validate(&set, ValidationMode::Strict);
        let errors = result.validation_errors().filter_map(|error| self.placed(files, error.policy_id(), error));
        let errors = one_for_each_place(errors.collect());
        let warnings = result.validation_warnings().filter_map(|warning| self.placed(files, warning.policy_id(), warning));
        let warnings = one_for_each_place(warnings.collect());
        self.problems.extend(errors);
        self.warnings.extend(warnings);
    }

    fn placed(&self, files: &[(PathBuf, String)], id: &PolicyId, diagnostic: &dyn Diagnostic) -> Option<Problem> {
        let id: &str = id.as_ref();
        let policy = self.policies.iter().find(|policy| &*policy.id == id)?;
        let (file, text) = files.iter().find(|(file, _)| *file == policy.file)?;
        let mut problem = diagnosed(ProblemKind::Schema, file, text, diagnostic);
        if problem.line == 0 {
            (problem.line, problem.column) = (policy.line, 1);
        }
        Some(problem)
    }
}

/// Cedar tells the same once for each type that a policy may be about: that is one problem.
fn one_for_each_place(mut problems: Vec<Problem>) -> Vec<Problem> {
    let place = |problem: &Problem| (problem.file.clone(), problem.line, problem.column);
    problems.sort_by(|a, b| (place(a), &a.message).cmp(&(place(b), &b.message)));
    let mut merged: Vec<(Problem, usize)> = Vec::new();
    for problem in problems {
        match merged.last_mut() {
            Some((last, more)) if place(last) == place(&problem) => *more += 1,
            Some(_) | None => merged.push((problem, 0)),
        }
    }
    let told = merged.into_iter().map(|(mut problem, more)| {
        if more > 0 {
            problem.message = format!("{} (and {more} more of the kind)", problem.message);
        }
        problem
    });
    told.collect()
}

/// Kind, message and remedy of what is wrong with one policy.
type Complaint = (ProblemKind, std::borrow::Cow<'static, str>, std::borrow::Cow<'static, str>);

fn odd_annotation(name: &str) -> Complaint {
    let message = match name {
        "id" => "@id is empty".to_owned(),
        _ => format!("the annotation @{name} has no meaning here"),
    };
    let remedy = "the annotations are @id, @description, @remedy, and @approval with @quorum, @expires, @escalate and @width";
    (ProblemKind::Annotation, message.into(), remedy.into())
}

/// `@approval` and `context.approved` belong together: one without the other does not do what it seems to.
fn check_approval(forbids: bool, annotated: bool, reads: &Reads) -> Result<(), Complaint> {
    let reads = reads.context("approved");
    let (message, remedy) = match (forbids, annotated, reads) {
        (true, true, true) | (_, false, false) => return Ok(()),
        (false, true, _) => (
            "@approval stands on a permit: it holds nothing",
            "write a forbid with `unless { context.approved }`, besides the permit",
        ),
        (true, true, false) => (
            "@approval stands on a policy that does not read context.approved: an approval would change nothing",
            "end the policy with `unless { context.approved }`",
        ),
        (true, false, true) => {
            ("the policy reads context.approved but names no reviewers: it would always forbid", "add @approval(\"GROUP\")")
        }
        (false, false, true) => (
            "a permit reads context.approved: nobody is ever asked on account of a permit",
            "permit it, and add a forbid with @approval(\"GROUP\") and `unless { context.approved }`",
        ),
    };
    Err((ProblemKind::Approval, message.into(), remedy.into()))
}

/// A problem from one of Cedar's, with its place in `text`.
fn diagnosed(kind: ProblemKind, file: &Path, text: &str, diagnostic: &dyn Diagnostic) -> Problem {
    let label = diagnostic.labels().and_then(|mut labels| labels.next());
    let (line, column) = label.as_ref().map_or((0, 0), |label| line_and_column(text, label.offset()));
    let mut message = diagnostic.to_string();
    if let Some(label) = label.as_ref().and_then(|label| label.label()) {
        message = format!("{message} ({label})");
    }
    let remedy = diagnostic.help().map_or_else(
        || match kind {
            ProblemKind::Schema => "`sallyport policy schema` prints what policies may speak of".to_owned(),
            _ => String::new(),
        },
        |help| help.to_string(),
    );
    Problem { kind, file: file.to_owned(), line, column, message, remedy }
}
