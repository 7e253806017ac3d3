//! From a URL and credentials to a place that can be read and written.

use super::http::Connector;
use super::place::Place;
use crate::config::{ObjectCredential, ObjectUrl, Reach, Secret};
use crate::target::tls::outbound;
use axum::http::HeaderName;
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::local::LocalFileSystem;
use object_store::{BackoffConfig, ClientOptions, HeaderMap, HeaderValue, ObjectStore, RetryConfig};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Says which checksum comes with an upload.
const CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("x-amz-sdk-checksum-algorithm");
/// Tries of one request; the whole is tried again later in any case.
const RETRY: RetryConfig = RetryConfig {
    backoff: BackoffConfig { init_backoff: Duration::from_millis(200), max_backoff: Duration::from_secs(5), base: 2.0 },
    max_retries: 3,
    retry_timeout: Duration::from_secs(30),
};

/// A place that is ready; nothing was asked of it. `make`: a folder is made where it is not there, for its owner alone.
///
/// # Errors
/// What is wrong with the settings, in a sentence.
pub(super) fn open(url: &ObjectUrl, reach: &Reach, make: bool) -> Result<Place, String> {
    let store: Arc<dyn ObjectStore> = match url {
        ObjectUrl::S3 { bucket, .. } => {
            let writer = s3(bucket, reach, true)?;
            return Ok(Place::new(Arc::new(s3(bucket, reach, false)?), Arc::new(writer), url));
        }
        ObjectUrl::Azure { container, account, .. } => Arc::new(azure(container, account.as_ref(), reach)?),
        ObjectUrl::Folder { path } => Arc::new(folder(path, make)?),
    };
    Ok(Place::new(Arc::clone(&store), store, url))
}

/// Where one object is replaced: the place that it is in, and its name.
pub(super) fn open_object(url: &ObjectUrl, reach: &Reach, make: bool) -> Result<(Place, String), String> {
    let mut folder = url.clone();
    let name = match &mut folder {
        ObjectUrl::S3 { prefix, .. } | ObjectUrl::Azure { prefix, .. } => {
            let (rest, name) = prefix.rsplit_once('/').unwrap_or(("", prefix.as_str()));
            let (rest, name) = (rest.to_owned(), name.to_owned());
            *prefix = rest;
            name
        }
        ObjectUrl::Folder { path } => {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            path.pop();
            name
        }
    };
    if name.is_empty() {
        return Err(format!("{url} names no object"));
    }
    Ok((open(&folder, reach, make)?, name))
}

fn connector(reach: &Reach) -> Result<Connector, String> {
    let plain = reach.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let tls = outbound(reach.ca.as_deref(), plain).map_err(|error| error.to_string())?;
    Ok(Connector::new(tls))
}

/// A secret as text. The error says where it is, never what.
fn text(secret: &Secret) -> Result<String, String> {
    let bytes = secret.get().map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(bytes.expose()).map(|text| text.trim().to_owned());
    text.map_err(|_| format!("{} is not text", secret.reference()))
}

fn s3(bucket: &str, reach: &Reach, writes: bool) -> Result<object_store::aws::AmazonS3, String> {
    let mut builder = match &reach.credential {
        ObjectCredential::S3 { access_key_id, secret_access_key, session_token } => {
            let builder =
                AmazonS3Builder::new().with_access_key_id(text(access_key_id)?).with_secret_access_key(text(secret_access_key)?);
            match session_token {
                Some(token) => builder.with_token(text(token)?),
                None => builder,
            }
        }
        _ => AmazonS3Builder::from_env(),
    };
    if let Some(endpoint) = &reach.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    if let Some(region) = &reach.region {
        builder = builder.with_region(region);
    }
    if writes {
        // Buckets with Object Lock take nothing without a checksum; the service's documentation wants it to be announced.
        let announced = HeaderMap::from_iter([(CHECKSUM_ALGORITHM, HeaderValue::from_static("SHA256"))]);
        builder = builder
            .with_checksum_algorithm(Checksum::SHA256)
            .with_client_options(ClientOptions::new().with_default_headers(announced));
    }
    builder
        .with_bucket_name(bucket)
        .with_retry(RETRY)
        .with_http_connector(connector(reach)?)
        .build()
        .map_err(|error| error.to_string())
}

fn azure(
    container: &str,
    account: Option<&(String, String)>,
    reach: &Reach,
) -> Result<object_store::azure::MicrosoftAzure, String> {
    let mut builder = match &reach.credential {
        ObjectCredential::AccountKey(key) => MicrosoftAzureBuilder::new().with_access_key(text(key)?),
        ObjectCredential::Sas(sas) => {
            MicrosoftAzureBuilder::new().with_config(AzureConfigKey::SasKey, text(sas)?.trim_start_matches('?'))
        }
        ObjectCredential::Client { tenant, client, secret } => {
            MicrosoftAzureBuilder::new().with_client_secret_authorization(client, text(secret)?, tenant)
        }
        _ => MicrosoftAzureBuilder::from_env(),
    };
    if let Some((account, endpoint)) = account {
        builder = builder.with_account(account).with_endpoint(endpoint.clone());
    }
    if let Some(account) = &reach.account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = &reach.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    builder
        .with_container_name(container)
        .with_retry(RETRY)
        .with_http_connector(connector(reach)?)
        .build()
        .map_err(|error| error.to_string())
}

fn folder(path: &Path, make: bool) -> Result<LocalFileSystem, String> {
    if make {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    LocalFileSystem::new_with_prefix(path).map(|folder| folder.with_fsync(true)).map_err(|error| error.to_string())
}
