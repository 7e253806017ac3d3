//! Who may do what, on every route that there is: the list is read from where the router is written.

use crate::login::{Login, LoginConfig};
use crate::testing::{Gateway, ask, principal};
use std::time::Duration;

/// Where routes are written.
const SOURCES: [&str; 3] = [include_str!("routes/mod.rs"), include_str!("../pages/mod.rs"), include_str!("../login/routes.rs")];

/// What anybody may ask, and why.
const OPEN: [(&str, &str); 10] = [
    ("GET /healthz", "monitoring"),
    ("GET /readyz", "monitoring"),
    ("GET /metrics", "monitoring"),
    ("GET /log/checkpoint", "witnesses"),
    ("POST /integrations/slack", "signed by Slack"),
    ("GET /assets/{file}", "style and scripts"),
    ("GET /login", "nobody is known yet"),
    ("GET /login/callback", "nobody is known yet"),
    ("POST /login/token", "nobody is known yet"),
    ("GET /login/out", "nobody is known any more"),
];

/// Requests of methods that change nothing although they are POST.
const READS: [&str; 1] = ["POST /api/v1/audit/verify"];

/// `METHOD /path`, for each route.
fn routes() -> Vec<String> {
    let mut routes = Vec::new();
    for source in SOURCES {
        for part in source.split(".route(\"").skip(1) {
            let (path, rest) = part.split_once('"').unwrap();
            let handlers = rest.split(".route(").next().unwrap().split('\n').next().unwrap();
            for (word, method) in
                [("get(", "GET"), ("post(", "POST"), ("put(", "PUT"), ("delete(", "DELETE"), ("patch(", "PATCH")]
            {
                if handlers.contains(word) {
                    routes.push(format!("{method} {path}"));
                }
            }
        }
    }
    routes
}

fn address(route: &str) -> (&str, String) {
    let (method, path) = route.split_once(' ').unwrap();
    let path = path.replace("{id}", "abc234").replace("{*path}", "tile/0/000").replace("{file}", "style.css");
    (method, path)
}

fn gateway() -> Gateway {
    Gateway::with_login(|_| {
        let config = LoginConfig {
            provider: None,
            url: Some("https://here.example".into()),
            dev_tokens: true,
            lasts: Duration::from_secs(600),
            idle: Duration::from_secs(600),
            fresh: None,
        };
        Some(Login::new(config, identity::HttpClient::new(None).unwrap(), Box::new(|_| true)).unwrap())
    })
}

#[test]
fn the_list_is_of_all_routes() {
    let routes = routes();
    assert!(routes.len() > 50, "{routes:?}");
    for (open, _) in OPEN {
        assert!(routes.iter().any(|route| route == open), "{open} is not there any more");
    }
}

#[tokio::test]
async fn nobody_does_anything_without_a_login() {
    let gateway = gateway();
    let address_of = gateway.listen().await;
    for route in routes().iter().filter(|route| !OPEN.iter().any(|(open, _)| open == route)) {
        let (method, path) = address(route);
        for headers in
            ["", "Authorization: Bearer forged\r\n", "Cookie: __Host-sallyport=forged\r\n", "Authorization: Basic eDp5\r\n"]
        {
            let kind = if path.starts_with("/api") { "application/json" } else { "application/x-www-form-urlencoded" };
            let body = if path.starts_with("/api") { "{}" } else { "csrf=x" };
            let answer = ask(address_of, method, &path, &format!("{headers}Content-Type: {kind}\r\n"), body).await;
            let to_login = answer.status == 303 && answer.header("location").starts_with("/login");
            assert!(answer.status == 401 || to_login, "{route} {headers}: {answer:?}");
        }
    }
    assert_eq!(gateway.recorded(), []);
}

#[tokio::test]
async fn who_has_no_role_does_nothing_and_an_auditor_changes_nothing() {
    let gateway = gateway();
    let address_of = gateway.listen().await;
    let login = gateway.state.login.as_ref().unwrap();
    gateway.hold();
    for (roles, reads) in [(&[][..], false), (&["sales"], false), (&["auditor"], true)] {
        let (cookie, csrf) = login.open_for(principal("somebody", roles));
        for route in routes().iter().filter(|route| !OPEN.iter().any(|(open, _)| open == route)) {
            let (method, path) = address(route);
            let own = ["POST /logout", "GET /events"].contains(&route.as_str());
            if own || (reads && (method == "GET" || READS.contains(&route.as_str()))) {
                continue;
            }
            let api = path.starts_with("/api") || path.starts_with("/log/");
            let (kind, body) = match api {
                true => ("application/json", body_of(route)),
                false => ("application/x-www-form-urlencoded", format!("csrf={csrf}")),
            };
            let headers =
                format!("Cookie: {cookie}\r\nOrigin: https://here.example\r\nX-CSRF-Token: {csrf}\r\nContent-Type: {kind}\r\n");
            let answer = ask(address_of, method, &path, &headers, &body).await;
            assert_eq!(answer.status, 403, "{route} as {roles:?}: {answer:?}");
        }
    }
    assert_eq!(gateway.recorded(), []);
}

/// A body that is of the form.
fn body_of(route: &str) -> String {
    let body = match route {
        "POST /api/v1/sessions/kill" => r#"{"principal":"x"}"#,
        "POST /api/v1/keys" => r#"{"subject":"x","roles":[]}"#,
        "POST /api/v1/revocations" => r#"{"what":{"principal":"x"},"reason":"x"}"#,
        "POST /api/v1/revocations/lift" => r#"{"principal":"x"}"#,
        "POST /api/v1/audit/holds" => r#"{"reason":"x"}"#,
        "POST /api/v1/audit/holds/{id}/release" => r#"{"reason":"x"}"#,
        "POST /api/v1/audit/redact" => r#"{"entry":1,"reason":"x"}"#,
        _ => "{}",
    };
    body.to_owned()
}
