//! What a policy's `@approval`, and the annotations beside it, ask for.
//!
//! | annotation | means |
//! | --- | --- |
//! | `@approval("dba, security")` | each of these groups must approve |
//! | `@quorum("2")` | so many different people of each of them (1) |
//! | `@expires("10m")` | the request waits no longer than this, nor than the gateway lets any request wait |
//! | `@escalate("leads after 5m")` | from then on, members of that group may approve for any of them |
//! | `@width("session, 1h")` | reviewers may let an approval cover statements of the same shape for the rest of the session, or what the same policies hold for at most an hour (neither) |
//!
//! Where several policies ask, the strictest of each counts.

use proxy_core::pipeline::{Escalation, ReviewGroup, Widths};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most people of a group that a policy can ask for: more would wait for ever in any team.
const QUORUM_MAX: u32 = 10;
/// Longest wait that an annotation can name: a day.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What is wrong with an annotation, and what to write instead.
pub(crate) type Wrong = (Cow<'static, str>, Cow<'static, str>);

/// What one policy asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalTerms {
    /// The groups, sorted, each of which must agree.
    pub groups: Vec<String>,
    /// How many people of each.
    pub quorum: u32,
    /// Longest wait.
    pub expires: Option<Duration>,
    /// Who may speak for any of them later.
    pub escalation: Option<Escalation>,
    /// How much more than the one request an approval may cover.
    pub widths: Widths,
}

/// What several policies ask for together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Together {
    pub(crate) groups: Vec<ReviewGroup>,
    pub(crate) expires: Option<Duration>,
    pub(crate) widths: Widths,
}

impl ApprovalTerms {
    /// What several policies ask for together: every group that one of them names, with the largest quorum; the shortest
    /// wait; of those who may speak for a group later the one whom all policies that name it agree on, at the latest
    /// time; and the widths that all of them allow.
    pub(crate) fn together<'t>(terms: impl Iterator<Item = &'t Self>) -> Together {
        let mut groups: BTreeMap<&str, ReviewGroup> = BTreeMap::new();
        let mut expires: Option<Duration> = None;
        let mut widths: Option<Widths> = None;
        for term in terms {
            expires = [expires, term.expires].into_iter().flatten().min();
            widths = Some(widths.map_or(term.widths, |widths| narrower(widths, term.widths)));
            for name in &term.groups {
                let asked = ReviewGroup { name: name.clone(), quorum: term.quorum, escalation: term.escalation.clone() };
                groups.entry(name).and_modify(|group| stricter(group, &asked)).or_insert(asked);
            }
        }
        Together { groups: groups.into_values().collect(), expires, widths: widths.unwrap_or_default() }
    }
}

fn narrower(a: Widths, b: Widths) -> Widths {
    Widths { session: a.session && b.session, window: a.window.zip(b.window).map(|(a, b)| a.min(b)) }
}

fn stricter(group: &mut ReviewGroup, other: &ReviewGroup) {
    group.quorum = group.quorum.max(other.quorum);
    group.escalation = match (group.escalation.take(), &other.escalation) {
        (Some(a), Some(b)) if a.group == b.group => Some(Escalation { after: a.after.max(b.after), group: a.group }),
        _ => None,
    };
}

/// The annotations as they stand in a policy.
#[derive(Debug, Default)]
pub(crate) struct Annotations<'p> {
    approval: Option<&'p str>,
    quorum: Option<&'p str>,
    expires: Option<&'p str>,
    escalate: Option<&'p str>,
    width: Option<&'p str>,
}

impl<'p> Annotations<'p> {
    /// Takes one, if it is of this kind.
    pub(crate) fn take(&mut self, name: &str, value: &'p str) -> bool {
        let place = match name {
            "approval" => &mut self.approval,
            "quorum" => &mut self.quorum,
            "expires" => &mut self.expires,
            "escalate" => &mut self.escalate,
            "width" => &mut self.width,
            _ => return false,
        };
        *place = Some(value);
        true
    }

    /// What they ask for; `None`: there is no `@approval`.
    ///
    /// # Errors
    /// One of them has no meaning, or stands without `@approval`.
    pub(crate) fn terms(&self) -> Result<Option<ApprovalTerms>, Wrong> {
        let Some(approval) = self.approval else {
            let others = [("quorum", self.quorum), ("expires", self.expires), ("escalate", self.escalate), ("width", self.width)];
            return match others.iter().find(|(_, value)| value.is_some()) {
                Some((name, _)) => Err((format!("@{name} stands without @approval").into(), "add @approval(\"GROUP\")".into())),
                None => Ok(None),
            };
        };
        let groups = groups(approval)?;
        let escalation = self.escalate.map(escalation).transpose()?;
        if let Some(escalation) = escalation.as_ref().filter(|escalation| groups.contains(&escalation.group)) {
            let message = format!("@escalate names {}, who is asked from the start", escalation.group);
            return Err((message.into(), "name another group, or leave @escalate out".into()));
        }
        let expires = self.expires.map(|value| wait("expires", value)).transpose()?;
        if let (Some(expires), Some(escalation)) = (expires, &escalation)
            && escalation.after >= expires
        {
            let message = "@escalate comes into effect when the request has expired".to_owned();
            return Err((message.into(), "let @expires be later than @escalate".into()));
        }
        let quorum = self.quorum.map_or(Ok(1), quorum)?;
        let widths = self.width.map_or(Ok(Widths::default()), widths)?;
        Ok(Some(ApprovalTerms { groups, quorum, expires, escalation, widths }))
    }
}

fn groups(value: &str) -> Result<Vec<String>, Wrong> {
    let mut groups: Vec<String> = value.split(',').map(|group| group.trim().to_owned()).collect();
    groups.sort();
    groups.dedup();
    if groups.iter().any(String::is_empty) {
        let remedy = "write @approval(\"dba\") or @approval(\"dba, security\")";
        return Err(("@approval names no group, or an empty one".into(), remedy.into()));
    }
    Ok(groups)
}

fn quorum(value: &str) -> Result<u32, Wrong> {
    let number = value.trim().parse().ok().filter(|number| (1..=QUORUM_MAX).contains(number));
    number.ok_or_else(|| {
        (format!("@quorum is not a number of people from 1 to {QUORUM_MAX}").into(), "write @quorum(\"2\")".into())
    })
}

fn escalation(value: &str) -> Result<Escalation, Wrong> {
    let odd =
        || -> Wrong { ("@escalate does not say to which group, and when".into(), "write @escalate(\"GROUP after 5m\")".into()) };
    let (group, after) = value.rsplit_once(" after ").ok_or_else(odd)?;
    let group = group.trim().to_owned();
    if group.is_empty() || group.contains(',') {
        return Err(odd());
    }
    Ok(Escalation { group, after: wait("escalate", after)? })
}

fn widths(value: &str) -> Result<Widths, Wrong> {
    let mut widths = Widths::default();
    for width in value.split(',').map(str::trim) {
        match width {
            "once" => {}
            "session" => widths.session = true,
            "" => return Err(("@width is empty".into(), "write @width(\"session\"), @width(\"1h\") or both".into())),
            window => widths.window = Some(wait("width", window)?),
        }
    }
    Ok(widths)
}

/// `90s`, `10m`, `2h`.
fn wait(name: &str, value: &str) -> Result<Duration, Wrong> {
    let odd = || -> Wrong {
        let message = format!("@{name} is not a time from 1s to 24h");
        (message.into(), "write a number with s, m or h, such as 90s, 10m or 2h".into())
    };
    let value = value.trim();
    let unit = match value.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3_600,
        _ => return Err(odd()),
    };
    let number: u64 = value.get(..value.len() - 1).and_then(|number| number.trim().parse().ok()).ok_or_else(odd)?;
    let wait = number.checked_mul(unit).map(Duration::from_secs).ok_or_else(odd)?;
    if wait.is_zero() || wait > WAIT_MAX { Err(odd()) } else { Ok(wait) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(list: &[(&str, &'static str)]) -> Result<Option<ApprovalTerms>, Wrong> {
        let mut annotations = Annotations::default();
        for (name, value) in list {
            assert!(annotations.take(name, value), "{name}");
        }
        annotations.terms()
    }

    #[test]
    fn annotations_are_read_or_refused_with_their_remedy() {
        assert_eq!(annotated(&[]), Ok(None));
        let escalation = Some(Escalation { group: "team leads".into(), after: Duration::from_secs(90) });
        let all = [
            ("approval", "security, dba"),
            ("quorum", "2"),
            ("expires", "2h"),
            ("escalate", "team leads after 90s"),
            ("width", "once, session, 30m"),
        ];
        let groups = vec!["dba".to_owned(), "security".to_owned()];
        let expires = Some(Duration::from_secs(7_200));
        let widths = Widths { session: true, window: Some(Duration::from_secs(1_800)) };
        assert_eq!(annotated(&all), Ok(Some(ApprovalTerms { groups, quorum: 2, expires, escalation, widths })));
        for (name, value, part) in [
            ("quorum", "0", "@quorum is not"),
            ("quorum", "11", "@quorum is not"),
            ("quorum", "two", "@quorum is not"),
            ("expires", "0s", "@expires is not"),
            ("expires", "25h", "@expires is not"),
            ("expires", "99999999999999999999h", "@expires is not"),
            ("expires", "é", "@expires is not"),
            ("expires", "10", "@expires is not"),
            ("escalate", "leads", "@escalate does not say"),
            ("escalate", " after 5m", "@escalate does not say"),
            ("escalate", "leads after soon", "@escalate is not"),
            ("escalate", "dba after 5m", "asked from the start"),
            ("width", "", "@width is empty"),
            ("width", "session,", "@width is empty"),
            ("width", "for ever", "@width is not a time"),
        ] {
            let (message, remedy) = annotated(&[("approval", "dba"), (name, value)]).unwrap_err();
            assert!(message.contains(part) && !remedy.is_empty(), "{name} {value}: {message}");
            assert!(annotated(&[(name, value)]).unwrap_err().0.contains("without @approval"), "{name}");
        }
        let late = [("approval", "dba"), ("expires", "5m"), ("escalate", "leads after 5m")];
        assert!(annotated(&late).unwrap_err().0.contains("has expired"));
    }

    #[test]
    fn the_strictest_of_several_policies_counts() {
        let after = |seconds| Some(Escalation { group: "leads".into(), after: Duration::from_secs(seconds) });
        let window = |seconds| Some(Duration::from_secs(seconds));
        let terms = |groups: &[&str], quorum, expires: Option<u64>, escalation, widths| ApprovalTerms {
            groups: groups.iter().map(ToString::to_string).collect(),
            quorum,
            expires: expires.map(Duration::from_secs),
            escalation,
            widths,
        };
        let (hour, both) = (Widths { session: false, window: window(3_600) }, Widths { session: true, window: window(60) });
        let asked = [
            terms(&["dba"], 1, None, after(60), both),
            terms(&["dba", "security"], 2, Some(600), after(30), hour),
            terms(&["owner"], 1, Some(900), after(10), both),
            terms(&["owner"], 1, None, None, both),
        ];
        let Together { groups, expires, widths } = ApprovalTerms::together(asked.iter());
        let group = |name: &str, quorum, escalation| ReviewGroup { name: name.into(), quorum, escalation };
        assert_eq!(groups, [group("dba", 2, after(60)), group("owner", 1, None), group("security", 2, after(30))]);
        assert_eq!(expires, Some(Duration::from_secs(600)));
        assert_eq!(widths, Widths { session: false, window: window(60) });
        assert_eq!(ApprovalTerms::together(asked[2..].iter()).widths, both);
        let never = terms(&["dba"], 1, None, None, Widths::default());
        assert_eq!(ApprovalTerms::together([&asked[0], &never].into_iter()).widths, Widths::default());
    }
}
