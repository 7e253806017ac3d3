//! Every key of `sallyport.toml`, in one table: the reader knows no other, suggestions and
//! `docs/reference/config.md` are made from it.

/// A section of the file.
#[derive(Debug, Clone, Copy)]
pub struct SectionDoc {
    /// Its name in [`KEYS`].
    pub name: &'static str,
    /// How it is written.
    pub header: &'static str,
    /// What it is.
    pub meaning: &'static str,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The section's name.
    pub section: &'static str,
    /// Its own name.
    pub name: &'static str,
    /// What its value is.
    pub kind: &'static str,
    /// Its default as TOML; in parentheses: not a value; empty: it must be given.
    pub default: &'static str,
    /// A value, as TOML.
    pub example: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// The key of that name in that section.
#[must_use]
pub fn key(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|known| known.section == section && known.name == name)
}

/// The keys of a section.
pub fn section_keys(section: &'static str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |known| known.section == section)
}

const fn section(name: &'static str, header: &'static str, meaning: &'static str) -> SectionDoc {
    SectionDoc { name, header, meaning }
}

const fn entry(
    path: (&'static str, &'static str),
    kind: &'static str,
    default: &'static str,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key { section: path.0, name: path.1, kind, default, example, meaning }
}

/// The sections, in the order of the reference.
pub const SECTIONS: &[SectionDoc] = &[
    section("", "the top of the file", "Keys before the first `[section]`."),
    section("tls", "[tls]", "The certificate that clients see. The files are read again when they change."),
    section(
        "listener",
        "[[listener]]",
        "Where the gateway listens. One for each protocol, at least. A change takes effect at the next start.",
    ),
    section("issuer", "[[issuer]]", "Who may vouch for a caller."),
    section(
        "login",
        "[login]",
        "How people log in to the pages of the admin listener, by OpenID Connect: see pages.md. Without it there are pages only where there is an [[issuer]] of kind `dev`, whose tokens log in.",
    ),
    section("connection", "[[connection]]", "A target, and how the gateway logs in to it."),
    section(
        "credential",
        "credential = { … } of [[connection]]",
        "The login that the gateway uses on the target. Callers never see it.",
    ),
    section("classify", "[[classify]]", "Which columns hold which class of data."),
    section("mask", "[[mask]]", "What a class looks like to those who may not see it."),
    section("policy", "[policy]", "Where the Cedar policies are."),
    section("limits", "[limits]", "Every limit has a default and a reason; raise one only when you met it."),
    section("audit", "[audit]", "The audit log."),
    section(
        "retention",
        "[[retention]]",
        "How long contents of the log are kept. What no rule is for is kept for ever. What is destroyed is recorded, and the log goes on to commit to it.",
    ),
    section(
        "witness",
        "[[witness]]",
        "Who cosigns the log's checkpoints, so that nobody can be shown another history: `sallyport witness` on a second machine, or anybody's that speaks C2SP tlog-witness. See witness.md.",
    ),
    section(
        "stream",
        "[[stream]]",
        "Where the audit log is sent as it grows: see `docs/export.md`. A change takes effect at the next start.",
    ),
    section(
        "secrets",
        "[secrets]",
        "How often secrets are fetched that are not on this machine: references `keyvault:` and `vault:`.",
    ),
    section("vault", "[vault]", "HashiCorp Vault, or OpenBao, for references `vault:`. How to set it up: secrets.md."),
    section(
        "keyvault",
        "[keyvault]",
        "How the gateway logs in to Azure Key Vaults, for references `keyvault:`. Without it: as the machine's managed identity.",
    ),
    section(
        "shipping",
        "[[shipping]]",
        "Object storage that the published log is shipped to: see `docs/shipping.md`. A change takes effect at the next start.",
    ),
    section(
        "object_credential",
        "credential = { … } of [[shipping]]",
        "What the gateway shows to the storage. Without it: what the environment offers (`AWS_…` and `AZURE_…` variables, workload identity, managed identity, IRSA, instance metadata).",
    ),
    section(
        "notify",
        "[[notify]]",
        "Who is told when a request waits or is decided: see notifications.md. Addresses are secrets. A change takes effect at the next start.",
    ),
    section("approvals", "[approvals]", "Requests that wait for a reviewer."),
    section(
        "telemetry",
        "[telemetry]",
        "Logs and traces of the gateway itself. (Metrics are at `/metrics` of the admin listener.)",
    ),
];

/// The keys, in the order of the reference.
pub const KEYS: &[Key] = &[
    // Top
    entry(
        ("", "data_dir"),
        "path",
        "\"data\"",
        "\"/var/lib/sallyport\"",
        "The folder for what the gateway keeps: audit log, machine keys, its own socket. It alone may read it.",
    ),
    entry(("", "threads"), "number", "(one for every two cores)", "4", "Event loops. A session stays on one."),
    entry(("", "tls"), "section", "(none)", "", "See `[tls]`."),
    entry(("", "listener"), "sections", "", "", "See `[[listener]]`."),
    entry(("", "issuer"), "sections", "(none)", "", "See `[[issuer]]`."),
    entry(("", "login"), "section", "(none)", "", "See `[login]`."),
    entry(("", "connection"), "sections", "(none)", "", "See `[[connection]]`."),
    entry(("", "classify"), "sections", "(none)", "", "See `[[classify]]`."),
    entry(("", "mask"), "sections", "(none)", "", "See `[[mask]]`."),
    entry(("", "retention"), "sections", "(none)", "", "See `[[retention]]`."),
    entry(("", "policy"), "section", "(defaults)", "", "See `[policy]`."),
    entry(("", "limits"), "section", "(defaults)", "", "See `[limits]`."),
    entry(("", "audit"), "section", "(defaults)", "", "See `[audit]`."),
    entry(("", "witness"), "sections", "(none)", "", "See `[[witness]]`."),
    entry(("", "stream"), "sections", "(none)", "", "See `[[stream]]`."),
    entry(("", "secrets"), "section", "(defaults)", "", "See `[secrets]`."),
    entry(("", "vault"), "section", "(none)", "", "See `[vault]`."),
    entry(("", "keyvault"), "section", "(defaults)", "", "See `[keyvault]`."),
    entry(("", "shipping"), "sections", "(none)", "", "See `[[shipping]]`."),
    entry(("", "notify"), "sections", "(none)", "", "See `[[notify]]`."),
    entry(("", "approvals"), "section", "(defaults)", "", "See `[approvals]`."),
    entry(("", "telemetry"), "section", "(defaults)", "", "See `[telemetry]`."),
    // tls
    entry(("tls", "certificate"), "path", "", "\"tls/gateway.pem\"", "Certificate chain, PEM, the gateway's own first."),
    entry(
        ("tls", "private_key"),
        "path",
        "",
        "\"tls/gateway.key\"",
        "Its private key, PEM, readable by the gateway's user alone.",
    ),
    // listener
    entry(
        ("listener", "protocol"),
        "word",
        "",
        "\"postgres\"",
        "`postgres`, or `admin`: REST API, `/metrics`, `/healthz`, `/readyz`.",
    ),
    entry(
        ("listener", "address"),
        "address",
        "",
        "\"127.0.0.1:5432\"",
        "`IP:PORT`, `[IPv6]:PORT`, `localhost:PORT` or `unix:PATH`.",
    ),
    entry(
        ("listener", "connection"),
        "text",
        "(any)",
        "\"orders-prod\"",
        "Ties the listener to one connection: database names are then the target's own.",
    ),
    entry(
        ("listener", "tls"),
        "word",
        "\"required\"",
        "\"optional\"",
        "`required`, or `optional`: only on a loopback address or a Unix socket, because credentials then travel as the client sends them.",
    ),
    // issuer
    entry(
        ("issuer", "name"),
        "text",
        "",
        "\"entra\"",
        "The first part of its callers' ids: `NAME/SUBJECT`. `key` is taken: machine keys.",
    ),
    entry(
        ("issuer", "kind"),
        "word",
        "\"oidc\"",
        "\"entra\"",
        "`oidc`, `entra` (with Entra ID's own claim rules) or `dev`: a key of the gateway's own for `sallyport dev-token`, only where every listener for clients is on loopback.",
    ),
    entry(("issuer", "issuer"), "URL", "", "\"https://login.example.com\"", "The exact `iss` of its tokens. Not for `dev`."),
    entry(
        ("issuer", "audience"),
        "text or list",
        "",
        "\"api://sallyport\"",
        "The `aud` that a token must have. Use one that only the gateway has. `dev`: default `sallyport`.",
    ),
    entry(
        ("issuer", "jwks"),
        "URL or `file:PATH`",
        "(OpenID discovery)",
        "\"file:keys.json\"",
        "Where its public keys are, if not by discovery.",
    ),
    entry(("issuer", "roles"), "text", "\"roles\"", "\"groups\"", "The claim that holds the roles."),
    entry(
        ("issuer", "tenants"),
        "list",
        "(the one of `issuer`)",
        "[\"9f2b1c1e-0000-4000-8000-000000000001\"]",
        "Entra: the tenants whose tokens are accepted.",
    ),
    // connection
    entry(
        ("connection", "name"),
        "text",
        "",
        "\"orders-prod\"",
        "What callers, policies and listings call it. Letters, digits, `-`, `_`, `.`.",
    ),
    entry(("connection", "protocol"), "word", "", "\"postgres\"", "`postgres`."),
    entry(
        ("connection", "address"),
        "text",
        "",
        "\"db.example.com:5432\"",
        "`HOST:PORT` of the target, or `unix:FOLDER:PORT` for a server on this host.",
    ),
    entry(("connection", "database"), "text", "", "\"orders\"", "The database when the caller names none."),
    entry(
        ("connection", "databases"),
        "list or `\"any\"`",
        "(the default alone)",
        "[\"orders\", \"archive\"]",
        "Databases that callers may name as `CONNECTION/DATABASE`, besides the default.",
    ),
    entry(
        ("connection", "tls"),
        "word",
        "\"verify-full\"",
        "\"verify-full\"",
        "Towards the target: `verify-full` (certificate and name are checked), `require` (encrypted, but the server is not checked) or `disable`.",
    ),
    entry(
        ("connection", "ca"),
        "path",
        "(the system's)",
        "\"tls/orders-ca.pem\"",
        "Certificates that `verify-full` trusts, PEM.",
    ),
    entry(
        ("connection", "owner"),
        "text",
        "(none)",
        "\"payments\"",
        "Who answers for the target: shown in records and to reviewers.",
    ),
    entry(
        ("connection", "tags"),
        "table of texts",
        "(none)",
        "{ env = \"prod\" }",
        "Attributes for policies: `resource.getTag(\"env\")`.",
    ),
    entry(
        ("connection", "credential"),
        "table",
        "",
        "{ user = \"gateway\", password = \"env:ORDERS_PASSWORD\" }",
        "The gateway's login on the target.",
    ),
    entry(
        ("connection", "outlive_token"),
        "boolean",
        "false",
        "true",
        "Whether a session may go on after its caller's token has expired.",
    ),
    entry(
        ("connection", "safe_functions"),
        "list",
        "(none)",
        "[\"public.order_total\"]",
        "Functions of your own that read and write nothing that policies care about. A call of any other is `unknown`.",
    ),
    // credential
    entry(("credential", "user"), "text", "", "\"gateway\"", "Login name on the target."),
    entry(
        ("credential", "password"),
        "reference",
        "(none)",
        "\"env:ORDERS_PASSWORD\"",
        "`env:NAME`, `file:PATH`, `keyvault:VAULT/secrets/NAME` or `vault:MOUNT/data/PATH#FIELD`; never the password itself. A file is read again when it changes, the others are fetched again (`[secrets]`).",
    ),
    // classify
    entry(("classify", "class"), "text", "", "\"email\"", "The class: `DataClass::\"email\"` in policies."),
    entry(
        ("classify", "columns"),
        "list",
        "",
        "[\"orders-prod/public.customers.email\"]",
        "`CONNECTION/SCHEMA.TABLE.COLUMN`; `*` stands for any run of characters within a part.",
    ),
    entry(
        ("classify", "detect"),
        "word",
        "(none)",
        "\"email\"",
        "A detector of content, for `check --connect`: `email`, `card`, `iban`, `phone`, `ssn`, `ip`.",
    ),
    // mask
    entry(("mask", "class"), "text", "", "\"email\"", "The class."),
    entry(("mask", "with"), "word", "", "\"partial\"", "`email`, `partial`, `redact`, `hash`, `null`, `fixed`."),
    entry(("mask", "show_first"), "number", "0", "2", "`partial`: characters shown at the start."),
    entry(("mask", "show_last"), "number", "4", "4", "`partial`: characters shown at the end."),
    entry(("mask", "value"), "text", "(none)", "\"n/a\"", "`fixed`: the text."),
    entry(
        ("mask", "secret"),
        "reference",
        "(one under data_dir)",
        "\"env:SALLYPORT_HASH_SECRET\"",
        "`hash`: the secret that keys the hash, so that it cannot be guessed by trying values.",
    ),
    // policy
    entry(("policy", "dir"), "path", "\"policies\"", "\"policies\"", "The folder with `*.cedar` files."),
    // limits
    entry(
        ("limits", "statement_max"),
        "size",
        "\"1 MiB\"",
        "\"1 MiB\"",
        "Longest statement. Longer ones are refused: they take the grammar too long, and nobody can review them.",
    ),
    entry(
        ("limits", "message_max"),
        "size",
        "\"64 MiB\"",
        "\"64 MiB\"",
        "Longest message that must be held whole to be understood. Rows and COPY data stream and have no limit.",
    ),
    entry(
        ("limits", "masked_row_max"),
        "size",
        "\"64 MiB\"",
        "\"64 MiB\"",
        "Longest row that can be masked: it must be held, because its length stands before its values.",
    ),
    entry(("limits", "prepared_max"), "number", "10000", "10000", "Prepared statements and portals of one session."),
    entry(("limits", "pipeline_max"), "number", "1024", "1024", "Requests of one session that are sent and not yet answered."),
    entry(
        ("limits", "login_timeout"),
        "duration",
        "\"15s\"",
        "\"15s\"",
        "From the accepted connection to the finished login: a login that stalls is dropped.",
    ),
    entry(("limits", "idle_timeout"), "duration", "\"none\"", "\"8h\"", "Ends a session that asked nothing for so long."),
    entry(("limits", "statement_timeout"), "duration", "\"none\"", "\"1h\"", "Ends a request that runs for longer."),
    entry(
        ("limits", "connections_max"),
        "number",
        "10000",
        "10000",
        "Client connections in all. Each costs memory and two file descriptors.",
    ),
    entry(
        ("limits", "connections_per_principal_max"),
        "number",
        "1000",
        "1000",
        "Sessions of one principal, so that one caller cannot take all.",
    ),
    entry(("limits", "logins_per_address_max"), "number", "64", "64", "Logins in progress from one address."),
    entry(
        ("limits", "drain_timeout"),
        "duration",
        "\"30s\"",
        "\"30s\"",
        "How long a stopping gateway waits for running requests before it ends their sessions.",
    ),
    // audit
    entry(
        ("audit", "durability"),
        "word",
        "\"write\"",
        "\"sync\"",
        "`write`: an entry survives a killed process (written before the statement is forwarded, on the disk within 100 ms); `sync`: it survives a power cut (on the disk before the statement is forwarded).",
    ),
    entry(
        ("audit", "min_free"),
        "size",
        "\"1 GiB\"",
        "\"1 GiB\"",
        "Space that must stay free on the log's disk. Below it, statements are refused.",
    ),
    entry(
        ("audit", "heartbeat"),
        "duration",
        "\"5m\"",
        "\"5m\"",
        "An entry when nothing happened for so long: silence can be told from absence.",
    ),
    entry(
        ("audit", "checkpoint"),
        "duration",
        "\"5s\"",
        "\"5s\"",
        "How often the log is signed and published while it grows. What was signed cannot be changed unnoticed.",
    ),
    entry(
        ("audit", "export"),
        "boolean",
        "true",
        "false",
        "Publish the log in the data folder's `export/` (C2SP tlog-tiles), where other tools can verify it. It takes as much space again, and is not compressed.",
    ),
    entry(
        ("audit", "key"),
        "reference",
        "(none)",
        "\"env:SALLYPORT_LOG_KEY\"",
        "A secret of at least 32 random bytes that seals the log's private key on the disk. Once set, it is needed at every start.",
    ),
    entry(
        ("audit", "payload_key"),
        "reference",
        "(none)",
        "\"vault:transit/keys/sallyport\"",
        "Seals long statements and parameters, which are kept beside their entries: what wraps their keys. `file:PATH` or `env:NAME` (a secret of at least 32 random bytes), `keyvault:VAULT/keys/NAME` (RSA), or `vault:MOUNT/keys/NAME` (transit). Once set, it is needed at every start.",
    ),
    entry(
        ("audit", "witnesses_min"),
        "number",
        "0",
        "1",
        "How many of the `[[witness]]` must have cosigned a checkpoint. Not more than there are.",
    ),
    // retention
    entry(
        ("retention", "keep"),
        "duration",
        "",
        "\"13 months\"",
        "For how long: `90d`, `13 months` (of 31 days), `7 years` (of 366).",
    ),
    entry(("retention", "connection"), "text", "(all)", "\"orders-prod\"", "Entries of sessions on this connection."),
    entry(("retention", "kinds"), "list", "(all)", "[\"request\", \"outcome\"]", "Entries of these kinds."),
    entry(
        ("retention", "fields"),
        "list",
        "(whole entries)",
        "[\"statement\", \"parameters\"]",
        "These fields, as far as they are kept beside their entries because of their length.",
    ),
    // witness
    entry(
        ("witness", "key"),
        "text",
        "",
        "\"witness.example+d5a1cfe3+BFDYWOCYXsx/YEGKrwzFq1h/QsJXCohAlanozKzQ9lRc\"",
        "Its verifier key, as `sallyport witness --print-key` prints it. Its name is the part before the first `+`.",
    ),
    entry(
        ("witness", "url"),
        "URL",
        "",
        "\"https://witness.example:8444\"",
        "Where it is asked, without `/add-checkpoint`. `http://` on this host alone.",
    ),
    entry(("witness", "ca"), "path", "(the system's)", "\"tls/witness-ca.pem\"", "Certificates that are trusted for it, PEM."),
    // stream
    entry(("stream", "name"), "text", "", "\"siem\"", "Names its cursor and its metrics. A new name begins anew."),
    entry(
        ("stream", "to"),
        "URL",
        "",
        "\"https://siem.example.com/services/collector/raw\"",
        "`syslog+tls://HOST:PORT`, `syslog+tcp://HOST:PORT`, `https://…` (batches by POST) or `otlp+https://…` (OTLP logs). Plain `http` on this host alone.",
    ),
    entry(("stream", "format"), "word", "\"jsonl\"", "\"ocsf\"", "What each entry looks like: `jsonl`, `ocsf`, `cef` or `ecs`."),
    entry(("stream", "ca"), "path", "(the system's)", "\"tls/siem-ca.pem\"", "Certificates that are trusted, PEM."),
    entry(
        ("stream", "headers"),
        "table of references",
        "(none)",
        "{ Authorization = \"env:SIEM_AUTHORIZATION\" }",
        "Headers of HTTP requests. Each value is a reference (see `password`) to what holds the whole value.",
    ),
    entry(
        ("stream", "kinds"),
        "list",
        "(all)",
        "[\"request\", \"outcome\", \"login_failed\"]",
        "Kinds of entries that are sent. All, unless the receiver cannot take them: gaps can then not be told from absence.",
    ),
    entry(
        ("stream", "from"),
        "word",
        "\"start\"",
        "\"now\"",
        "Where a stream begins that has no cursor yet: with the first entry of the log, or with the next one.",
    ),
    // secrets
    entry(
        ("secrets", "refresh"),
        "duration",
        "\"5m\"",
        "\"1m\"",
        "How often each is fetched again. A rotated password is used from then on.",
    ),
    entry(
        ("secrets", "stale_max"),
        "duration",
        "\"4h\"",
        "\"1h\"",
        "For how long the last value is used while it cannot be fetched. Afterwards, logins that need it fail.",
    ),
    // vault
    entry(("vault", "address"), "URL", "", "\"https://vault.example.com:8200\"", "Where it is. Plain `http` on this host alone."),
    entry(("vault", "namespace"), "text", "(none)", "\"team/prod\"", "Its namespace, where it has any."),
    entry(("vault", "ca"), "path", "(the system's)", "\"tls/vault-ca.pem\"", "Certificates that are trusted for it, PEM."),
    entry(("vault", "auth"), "word", "\"token\"", "\"approle\"", "How the gateway logs in: `token`, `approle` or `kubernetes`."),
    entry(("vault", "mount"), "text", "(the method's name)", "\"approle\"", "Where the method is mounted, without `auth/`."),
    entry(
        ("vault", "token"),
        "reference",
        "(none)",
        "\"file:/run/vault/token\"",
        "`token`: `env:NAME` or `file:PATH`. Somebody else renews it: Vault's agent, say.",
    ),
    entry(("vault", "role_id"), "reference", "(none)", "\"file:/run/vault/role-id\"", "`approle`: `env:NAME` or `file:PATH`."),
    entry(
        ("vault", "secret_id"),
        "reference",
        "(none)",
        "\"file:/run/vault/secret-id\"",
        "`approle`: `env:NAME` or `file:PATH`. It is read again for each login.",
    ),
    entry(("vault", "role"), "text", "(none)", "\"sallyport\"", "`kubernetes`: the role."),
    entry(
        ("vault", "jwt"),
        "path",
        "\"/var/run/secrets/kubernetes.io/serviceaccount/token\"",
        "\"/run/vault/jwt\"",
        "`kubernetes`: the file with the service account's token. It is read again for each login.",
    ),
    // keyvault
    entry(
        ("keyvault", "auth"),
        "word",
        "\"managed_identity\"",
        "\"workload_identity\"",
        "How the gateway logs in: `managed_identity` (of the machine, app or container), `workload_identity` (a federated token) or `client_secret`.",
    ),
    entry(
        ("keyvault", "client_id"),
        "text",
        "(the machine's, or `AZURE_CLIENT_ID`)",
        "\"9f2b1c1e-0000-4000-8000-000000000002\"",
        "The application, or which of several managed identities.",
    ),
    entry(
        ("keyvault", "tenant"),
        "text",
        "(`AZURE_TENANT_ID`)",
        "\"9f2b1c1e-0000-4000-8000-000000000001\"",
        "`workload_identity` and `client_secret`: the tenant.",
    ),
    entry(
        ("keyvault", "client_secret"),
        "reference",
        "(none)",
        "\"file:/run/azure/client-secret\"",
        "`client_secret`: `env:NAME` or `file:PATH`.",
    ),
    entry(
        ("keyvault", "token_file"),
        "path",
        "(`AZURE_FEDERATED_TOKEN_FILE`)",
        "\"/var/run/secrets/azure/tokens/azure-identity-token\"",
        "`workload_identity`: the file with the federated token.",
    ),
    entry(
        ("keyvault", "domain"),
        "text",
        "\"vault.azure.net\"",
        "\"vault.azure.cn\"",
        "What stands after a vault's name; other clouds have another.",
    ),
    entry(
        ("keyvault", "authority"),
        "URL",
        "\"https://login.microsoftonline.com\"",
        "\"https://login.partner.microsoftonline.cn\"",
        "Where tokens come from; other clouds have another.",
    ),
    entry(
        ("keyvault", "metadata"),
        "URL",
        "\"http://169.254.169.254\"",
        "\"http://127.0.0.1:40342\"",
        "`managed_identity`: the machine's metadata service.",
    ),
    entry(("keyvault", "ca"), "path", "(the system's)", "\"tls/keyvault-ca.pem\"", "Certificates that are trusted for it, PEM."),
    // shipping
    entry(("shipping", "name"), "text", "", "\"vault\"", "Names its cursor and its metrics."),
    entry(
        ("shipping", "url"),
        "URL",
        "",
        "\"s3://audit-log/gateway-1\"",
        "`s3://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX`, `abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX`, `file:///FOLDER` or `folder:PATH`. The log's id follows.",
    ),
    entry(
        ("shipping", "latest"),
        "URL or `\"none\"`",
        "(`latest` below `url`)",
        "\"s3://audit-open/gateway-1/latest\"",
        "Where the latest checkpoint stands, the only object that is replaced: outside of what is locked.",
    ),
    entry(("shipping", "every"), "duration", "\"1m\"", "\"1m\"", "How often what was published since is shipped."),
    entry(
        ("shipping", "locked"),
        "boolean",
        "true",
        "false",
        "`true`: nothing there is ever overwritten or removed. `false`: what is destroyed in the log is destroyed there as well.",
    ),
    entry(
        ("shipping", "endpoint"),
        "URL",
        "(the provider's)",
        "\"https://s3.example.com\"",
        "The service, where it is not the provider's own. `http://` on this host alone.",
    ),
    entry(("shipping", "region"), "text", "(`us-east-1`)", "\"eu-central-1\"", "S3's region."),
    entry(
        ("shipping", "account"),
        "text",
        "(the URL's, or the environment's)",
        "\"auditlogs\"",
        "Azure's storage account, for `az://`.",
    ),
    entry(("shipping", "ca"), "path", "(the system's)", "\"tls/storage-ca.pem\"", "Certificates that are trusted, PEM."),
    entry(
        ("shipping", "credential"),
        "table",
        "(the environment's)",
        "{ access_key_id = \"env:LOG_KEY_ID\", secret_access_key = \"env:LOG_SECRET_KEY\" }",
        "See below.",
    ),
    entry(("object_credential", "access_key_id"), "reference", "(none)", "\"env:LOG_KEY_ID\"", "S3."),
    entry(("object_credential", "secret_access_key"), "reference", "(none)", "\"env:LOG_SECRET_KEY\"", "S3."),
    entry(("object_credential", "session_token"), "reference", "(none)", "\"file:session-token\"", "S3: of a temporary key."),
    entry(("object_credential", "account_key"), "reference", "(none)", "\"env:LOG_ACCOUNT_KEY\"", "Azure: the account's key."),
    entry(
        ("object_credential", "sas"),
        "reference",
        "(none)",
        "\"env:LOG_SAS\"",
        "Azure: a shared access signature, as the portal gives it.",
    ),
    entry(
        ("object_credential", "tenant"),
        "text",
        "(none)",
        "\"9f2b1c1e-0000-4000-8000-000000000001\"",
        "Azure: the tenant of an application.",
    ),
    entry(
        ("object_credential", "client"),
        "text",
        "(none)",
        "\"9f2b1c1e-0000-4000-8000-000000000002\"",
        "Azure: the application's id.",
    ),
    entry(("object_credential", "client_secret"), "reference", "(none)", "\"env:LOG_CLIENT_SECRET\"", "Azure: its secret."),
    // login
    entry(
        ("login", "issuer"),
        "text",
        "",
        "\"entra\"",
        "The `[[issuer]]` whose people log in. Their roles are in the ID token, in its claim.",
    ),
    entry(("login", "client_id"), "text", "", "\"sallyport\"", "The gateway's name at the provider."),
    entry(
        ("login", "client_secret"),
        "reference",
        "(none)",
        "\"env:LOGIN_SECRET\"",
        "Its secret. Without it the gateway is a public client; PKCE is used either way.",
    ),
    entry(
        ("login", "url"),
        "URL",
        "",
        "\"https://sallyport.example.com:8443\"",
        "Where browsers find the admin listener: an origin. The provider sends people back to `URL/login/callback`, and after logging out to `URL/login/out`.",
    ),
    entry(("login", "scopes"), "texts", "[\"profile\"]", "[\"profile\", \"groups\"]", "What is asked for beside `openid`."),
    entry(("login", "session"), "duration", "\"8h\"", "\"8h\"", "Longest session."),
    entry(
        ("login", "idle"),
        "duration",
        "\"1h\"",
        "\"1h\"",
        "Longest time without a request. What a page asks by itself, to follow what happens, does not count.",
    ),
    entry(
        ("login", "fresh"),
        "duration",
        "\"none\"",
        "\"10m\"",
        "How long ago somebody may have logged in who decides on a request, or changes something else. `none`: as long as the session lasts.",
    ),
    // notify
    entry(("notify", "name"), "text", "", "\"reviewers\"", "Its name, in metrics and dead letters: `a-z`, `0-9`, `-`, `_`."),
    entry(("notify", "kind"), "word", "", "\"webhook\"", "`webhook`, `slack`, `teams` or `email`."),
    entry(
        ("notify", "url"),
        "reference",
        "(none)",
        "\"env:HOOK_URL\"",
        "Where to: of a webhook, of Slack's incoming webhook, of a workflow of Teams'.",
    ),
    entry(
        ("notify", "secrets"),
        "references",
        "(none)",
        "[\"env:HOOK_SECRET\"]",
        "Webhook: `whsec_BASE64`, by which messages are signed. With two, a receiver can change from one to the other.",
    ),
    entry(("notify", "token"), "reference", "(none)", "\"env:SLACK_TOKEN\"", "Slack: a bot's, instead of `url`."),
    entry(("notify", "channel"), "text", "(none)", "\"C0123456789\"", "Slack: the id of the bot's channel."),
    entry(
        ("notify", "signing_secret"),
        "reference",
        "(none)",
        "\"env:SLACK_SIGNING_SECRET\"",
        "Slack: with it, messages have buttons. Their interactions go to `URL/integrations/slack` of `[login]`.",
    ),
    entry(("notify", "server"), "text", "(none)", "\"smtp.example.com:587\"", "E-mail: the server."),
    entry(
        ("notify", "tls"),
        "word",
        "\"starttls\"",
        "\"implicit\"",
        "E-mail: `starttls`, `implicit`; `none` on this host alone.",
    ),
    entry(("notify", "user"), "text", "(none)", "\"sallyport\"", "E-mail: the login at the server."),
    entry(("notify", "password"), "reference", "(none)", "\"env:SMTP_PASSWORD\"", "E-mail: its password."),
    entry(("notify", "sender"), "text", "(none)", "\"Sallyport <sallyport@example.com>\"", "E-mail: who sends."),
    entry(("notify", "recipients"), "texts", "(none)", "[\"dba@example.com\"]", "E-mail: who gets it."),
    entry(("notify", "kinds"), "texts", "(all)", "[\"approval.requested\"]", "Which messages: see notifications.md."),
    entry(("notify", "groups"), "texts", "(all)", "[\"dba\"]", "Those that ask one of these groups, and those that ask none."),
    entry(("notify", "connections"), "texts", "(all)", "[\"orders-prod\"]", "Those of these connections."),
    entry(
        ("notify", "statement"),
        "boolean",
        "false",
        "true",
        "Whether the text of statements is in messages: whoever can read the channel can read it.",
    ),
    entry(("notify", "private"), "boolean", "false", "true", "Whether addresses of private networks may be connected to."),
    entry(("notify", "loopback"), "boolean", "false", "true", "Whether this host may be, without TLS too."),
    entry(("notify", "ca"), "path", "(the system's)", "\"tls/proxy-ca.pem\"", "CAs that are trusted besides the system's."),
    // approvals
    entry(("approvals", "timeout"), "duration", "\"10m\"", "\"10m\"", "Longest that a request waits."),
    entry(("approvals", "held_max"), "number", "1000", "1000", "Requests that wait at once. More are refused."),
    // telemetry
    entry(
        ("telemetry", "log"),
        "word",
        "\"auto\"",
        "\"json\"",
        "`auto` (lines for people on a terminal, JSON elsewhere), `human` or `json`.",
    ),
    entry(
        ("telemetry", "level"),
        "text",
        "\"info\"",
        "\"info,proxy_io=debug\"",
        "Which events: a level, or `MODULE=LEVEL` separated by commas. `SALLYPORT_LOG` overrides it.",
    ),
    entry(
        ("telemetry", "otlp"),
        "URL",
        "(none)",
        "\"http://127.0.0.1:4318\"",
        "Where to send OpenTelemetry traces (OTLP over HTTP): see traces.md.",
    ),
];
