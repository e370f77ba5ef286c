//! The values of an endpoint's headers and credentials that nobody reads again, as its columns have them: JSON, sealed
//! with a master key. What is shown of them is in the column `settings`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::errors::StoreError;
use super::shared::Shared;
use crate::domain::credential::Credential;
use crate::domain::credentials::Credentials;
use crate::domain::id::EndpointId;
use crate::domain::secret::{Keyring, OpenError, SealedKind, SealedSecret};
use crate::domain::settings::{EndpointChange, EndpointSettings};

/// The columns: the id of the master key, and what it sealed.
pub(super) const KEY_ID: &str = "credentials_key_id";
pub(super) const SEALED: &str = "credentials";

/// What is sealed. A value that is not set is absent.
#[derive(Serialize, Deserialize)]
struct CredentialsJson<'a> {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authentication: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_certificate: Option<Cow<'a, str>>,
}

/// Opens the values of an endpoint; without columns there are none.
pub(super) fn open(keyring: &Keyring, id: EndpointId, sealed: Option<&SealedSecret>) -> Result<Credentials, OpenError> {
    let Some(sealed) = sealed else { return Ok(Credentials::default()) };
    let text = keyring.open_text(SealedKind::Credentials, sealed, id.0)?;
    let json: CredentialsJson<'_> = serde_json::from_slice(&text).map_err(|_| OpenError::Damaged)?;
    let value = |text: Cow<'_, str>| Credential::new(text.into_owned());
    Ok(Credentials {
        headers: json.headers.into_iter().map(|(name, text)| (name, value(text))).collect(),
        authentication: json.authentication.map(value),
        client_certificate: json.client_certificate.map(value),
    })
}

impl Shared {
    /// Seals the values of an endpoint. `None` where there are none.
    pub fn seal_credentials(&self, id: EndpointId, credentials: &Credentials) -> Option<SealedSecret> {
        if credentials.is_empty() {
            return None;
        }
        let json = CredentialsJson {
            headers: credentials.headers.iter().map(|(name, value)| (name.clone(), value.reveal().into())).collect(),
            authentication: credentials.authentication.as_ref().map(|value| value.reveal().into()),
            client_certificate: credentials.client_certificate.as_ref().map(|value| value.reveal().into()),
        };
        let text = Zeroizing::new(serde_json::to_vec(&json).expect("strings are JSON"));
        Some(self.keyring().seal_text(SealedKind::Credentials, &text, id.0, self.random.array()))
    }

    /// The settings of an endpoint with this change, and its sealed values, where these are the ones before. Values are
    /// opened only where the change names them.
    pub fn change_settings(
        &self,
        id: EndpointId,
        mut change: EndpointChange,
        before: EndpointSettings,
        sealed: Option<SealedSecret>,
    ) -> Result<(EndpointSettings, Option<SealedSecret>), StoreError> {
        let faults = change.credential_faults(&before);
        if !faults.is_empty() {
            return Err(StoreError::CredentialsRefused(faults));
        }
        let of_credentials = std::mem::take(&mut change.credentials);
        let mut settings = change.applied_to(before);
        if of_credentials.is_empty() {
            return Ok((settings, sealed));
        }
        let opened = self.open_sealed(|keyring| open(keyring, id, sealed.as_ref()));
        let opened = opened.map_err(|error| StoreError::Corrupt(format!("endpoints.credentials: {error}")))?;
        let shown = std::mem::take(&mut settings.credentials);
        let (shown, opened) = of_credentials.applied_to(shown, opened);
        settings.credentials = shown;
        Ok((settings, self.seal_credentials(id, &opened)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::clock::{SeededRandom, SystemClock};
    use crate::domain::credentials::{CredentialsChange, ShownCredentials};
    use crate::domain::custom_headers::{Headers, NewHeaders};
    use crate::domain::transition::DeliveryPolicy;
    use crate::domain::url::{Environment, ReceiverUrl};
    use crate::store::keys::KeySource;
    use crate::store::open::Database;
    use crate::store::values::OpenOptions;

    /// What a process shares that reads its master keys from this folder now.
    fn shared(folder: &Path) -> Shared {
        let options = OpenOptions {
            database: Database::Sqlite(folder.join("aldaba.db")),
            keys: KeySource::File(folder.join("master-key")),
            environment: Environment::Development,
            policy: DeliveryPolicy::default(),
            max_endpoints: 50,
            max_api_keys: 100,
            max_in_flight_per_endpoint: 64,
            serves: false,
            clock: Arc::new(SystemClock),
            random: Arc::new(SeededRandom::new(1)),
            inbox: None,
        };
        let keyring = options.keys.load(&*options.random).expect("keys");
        Shared::new(options, keyring)
    }

    #[test]
    fn a_header_keeps_a_value_that_another_process_has_sealed_with_a_new_master_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let (process, id) = (shared(folder.path()), EndpointId::from_random([1; 16]));
        process.settings().keys.rotate_file(Some(Zeroizing::new([2; 32]))).expect("rotated");
        let other = shared(folder.path());
        let headers = [("X-Key".to_owned(), Credential::new("a value".to_owned()))];
        let opened = Credentials { headers: headers.into(), ..Credentials::default() };
        let sealed = other.seal_credentials(id, &opened);
        let headers = Some(Headers::stored([("X-Key".to_owned(), "...".to_owned())].into()));
        let url = ReceiverUrl::parse("http://127.0.0.1:9/", Environment::Development).expect("a URL");
        let before = EndpointSettings {
            credentials: ShownCredentials { headers, ..ShownCredentials::default() },
            ..EndpointSettings::new(&url, vec!["a.b".into()])
        };
        let headers = vec![("X-Key".to_owned(), None), ("X-New".to_owned(), Some("another".to_owned()))];
        let headers = NewHeaders::parse(headers, "aldaba").expect("headers");
        let credentials = CredentialsChange { headers: Some(Some(headers)), ..CredentialsChange::default() };
        let change = EndpointChange { credentials, ..EndpointChange::default() };
        let (_, sealed) = process.change_settings(id, change, before, sealed).expect("changed");
        let opened = open(&other.keyring(), id, sealed.as_ref()).expect("sealed with the new key");
        assert_eq!(opened.headers.values().map(Credential::reveal).collect::<Vec<_>>(), ["a value", "another"]);
    }
}
