//! Names of Cedar entities: an object's path within its target, so that no two objects share one.

use cedar_policy::{EntityId, EntityTypeName, EntityUid};
use proxy_core::{Object, ObjectKind, Principal, Target};
use std::borrow::Cow;
use std::str::FromStr;

/// One part of a name; quoted as in SQL where it could be mistaken for several.
fn part(name: &str) -> Cow<'_, str> {
    if name.is_empty() || name.contains(['.', '/', '"']) {
        Cow::Owned(format!("\"{}\"", name.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(name)
    }
}

/// The entity `KIND::"ID"`. `kind` is one of the schema's names.
pub(crate) fn uid(kind: &'static str, id: &str) -> Result<EntityUid, BadName> {
    let kind = EntityTypeName::from_str(kind).map_err(|_| BadName)?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

/// Not a name in the schema. It cannot happen with the names that this crate uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an entity type of the gateway's own is not in its schema")]
pub(crate) struct BadName;

/// The ids of a target's outer entities.
#[derive(Debug, Clone)]
pub(crate) struct TargetNames {
    /// `CONNECTION`.
    pub(crate) connection: String,
    /// `CONNECTION/DATABASE`.
    pub(crate) database: String,
}

impl TargetNames {
    pub(crate) fn new(target: &Target) -> Self {
        let connection = part(&target.connection).into_owned();
        let database = format!("{connection}/{}", part(&target.database));
        Self { connection, database }
    }

    /// The id of a schema of the database.
    pub(crate) fn schema(&self, schema: &str) -> String {
        format!("{}/{}", self.database, part(schema))
    }

    /// The id of a namespace of the connection.
    pub(crate) fn namespace(&self, namespace: &str) -> String {
        format!("{}/{}", self.connection, part(namespace))
    }

    /// The id of `object`.
    pub(crate) fn object(&self, object: &Object) -> String {
        let mut parts = object.path.iter().map(|name| part(name));
        let rest = |parts: &mut dyn Iterator<Item = Cow<'_, str>>| parts.map(|name| format!(".{name}")).collect::<String>();
        match object.kind {
            ObjectKind::Connection => self.connection.clone(),
            ObjectKind::Database => self.database.clone(),
            ObjectKind::Schema | ObjectKind::Table | ObjectKind::Function => {
                let first = parts.next().unwrap_or_else(|| part(""));
                format!("{}/{first}{}", self.database, rest(&mut parts))
            }
            ObjectKind::Namespace | ObjectKind::KubeResource => {
                let first = parts.next().unwrap_or_else(|| part(""));
                format!("{}/{first}{}", self.connection, rest(&mut parts))
            }
            ObjectKind::Host => match parts.next() {
                None => self.connection.clone(),
                Some(path) => format!("{}/{path}", self.connection),
            },
        }
    }
}

/// The principal's entity.
pub(crate) fn principal(principal: &Principal) -> Result<EntityUid, BadName> {
    uid(principal.kind.as_str(), &principal.id())
}

#[cfg(test)]
mod tests {
    use super::TargetNames;
    use proxy_core::{Object, ObjectKind, Target};
    use std::collections::BTreeMap;

    fn names() -> TargetNames {
        TargetNames::new(&Target {
            connection: "orders-prod".into(),
            address: "db:5432".into(),
            database: "orders".into(),
            upstream_user: "gateway".into(),
            owner: None,
            tags: BTreeMap::new(),
        })
    }

    #[test]
    fn objects_are_named_by_their_path() {
        let table = Object::new(ObjectKind::Table, ["public", "customers"]);
        assert_eq!(names().object(&table), "orders-prod/orders/public.customers");
        assert_eq!(names().object(&Object::new(ObjectKind::Connection, [""; 0])), "orders-prod");
    }

    #[test]
    fn a_dot_in_a_name_cannot_make_it_another_object() {
        let inner = names().object(&Object::new(ObjectKind::Table, ["a", "b.c"]));
        let outer = names().object(&Object::new(ObjectKind::Table, ["a.b", "c"]));
        let quote = names().object(&Object::new(ObjectKind::Table, ["a", "\"b.c\""]));
        assert_ne!(inner, outer);
        assert_ne!(inner, quote);
        assert_eq!(inner, "orders-prod/orders/a.\"b.c\"");
    }
}
