//! Makes accounts, event types and endpoints that an import has read. The functions that read the bodies of the API's
//! calls read them here too, so that nothing is made that the API would refuse. What is there already stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use serde_json::{Map, Value};

use super::report::{Fault, Outcome};
use crate::api::{
    Api, ApiError, CreateWebhook, Language, RepeatedNames, RequestBody as _, new_account, new_endpoint, new_event_type,
};
use crate::clock::{Random, SystemRandom};
use crate::config::Config;
use crate::domain::external_id::ExternalId;
use crate::domain::id::AccountId;
use crate::store::{Accounts, Catalog, Endpoints, Snapshot, Store, StoreError};

/// The body of a call.
pub(super) type Body = Map<String, Value>;

/// Makes things, or on a dry run looks whether it could.
pub(super) struct Maker {
    api: Api,
    store: Store,
    max_endpoints: u32,
    max_body: usize,
    dry_run: bool,
    /// Event types that a dry run has not made.
    planned_types: BTreeSet<String>,
}

/// An account whose endpoints are to be moved.
#[derive(Default)]
pub(super) struct Owner {
    /// `None` where a dry run has not made it.
    id: Option<AccountId>,
    endpoints: u32,
    /// The ids of its endpoints, by their external ids.
    named: BTreeMap<String, String>,
}

impl Owner {
    /// The endpoint that has one of these external ids.
    pub fn endpoint(&self, names: &[String]) -> Option<Outcome> {
        names.iter().find_map(|name| self.named.get(name)).map(|id| Outcome::Exists(id.clone()))
    }
}

impl Maker {
    /// `store` names the operator to the audit log.
    pub fn new(config: &Config, store: Store, dry_run: bool) -> Self {
        let api = crate::api_of_command(config, store.clone());
        let (max_endpoints, max_body) = (config.max_endpoints, config.max_body);
        Self { api, store, max_endpoints, max_body, dry_run, planned_types: BTreeSet::new() }
    }

    /// An account that is there.
    pub async fn owner(&self, id: AccountId) -> Result<Owner, StoreError> {
        let endpoints = self.store.endpoints(id).await?;
        let named = endpoints.iter().filter_map(|endpoint| {
            let name = endpoint.settings.external_id.as_ref()?;
            Some((name.to_string(), endpoint.id.to_string()))
        });
        let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
        Ok(Owner { id: Some(id), endpoints: count, named: named.collect() })
    }

    /// The account that has one of these external ids; else a new one.
    pub async fn account(&self, names: &[String], body: &Body) -> anyhow::Result<(Outcome, Option<Owner>)> {
        for name in names.iter().filter_map(|name| ExternalId::parse(name)) {
            match self.store.account_named(name).await {
                Ok(id) => return Ok((Outcome::Exists(id.to_string()), Some(self.owner(id).await?))),
                Err(StoreError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(refused) = self.too_large(body) {
            return Ok((refused, None));
        }
        let new = match new_account(body) {
            Ok(new) => new,
            Err(error) => return Ok((refused(&error)?, None)),
        };
        if self.dry_run {
            return Ok((Outcome::Made(None), Some(Owner::default())));
        }
        match self.store.create_account(new, None).await {
            Ok(made) => {
                let owner = Owner { id: Some(made.id), ..Owner::default() };
                Ok((Outcome::Made(Some(made.id.to_string())), Some(owner)))
            }
            Err(StoreError::ExternalIdTaken) => bail!("somebody else has just made the account {}", names.join(" or ")),
            Err(error) => Ok((refused_by_store(error)?, None)),
        }
    }

    /// Adds an event type to the catalog.
    pub async fn event_type(&mut self, body: Body) -> anyhow::Result<Outcome> {
        let name = body.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.store.refresh().await?;
        if self.planned_types.contains(&name) || self.store.view().event_types().contains_key(&name) {
            return Ok(Outcome::Exists(name));
        }
        if let Some(refused) = self.too_large(&body) {
            return Ok(refused);
        }
        let new = match new_event_type(&self.api, None, body).await {
            Ok(new) => new,
            Err(error) => return refused(&error),
        };
        if self.dry_run {
            self.planned_types.insert(name);
            return Ok(Outcome::Made(None));
        }
        match self.store.create_event_type(new, None).await {
            Ok(made) => Ok(Outcome::Made(Some(made.name))),
            Err(StoreError::Exists) => Ok(Outcome::Exists(name)),
            Err(error) => refused_by_store(error),
        }
    }

    /// Registers an endpoint of the account, unless the account has an endpoint with one of these external ids. The
    /// body names one of them, which the store keeps unique: no two imports at the same time make two endpoints.
    pub async fn endpoint(&self, owner: &mut Owner, names: &[String], body: &Body) -> anyhow::Result<Outcome> {
        if let Some(exists) = owner.endpoint(names) {
            return Ok(exists);
        }
        if let Some(refused) = self.too_large(body) {
            return Ok(refused);
        }
        // The API ignores fields that it does not know. An endpoint moves whole or not at all.
        let unknown = body.keys().filter(|name| !CreateWebhook::NAMES.contains(&name.as_str()));
        let unknown: Vec<Fault> =
            unknown.map(|name| Fault::of(name, format!("not yet: this version has no {name}"))).collect();
        if !unknown.is_empty() {
            return Ok(Outcome::Refused(unknown));
        }
        let events = body.get("events").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let planned = events.filter(|event| self.planned_types.contains(*event)).map(str::to_owned).collect();
        // Where a dry run has not made the account, the look at the URL's name counts for nobody.
        let random: &dyn Random = &SystemRandom::default();
        let account = owner.id.unwrap_or_else(|| AccountId::from_random(random.array()));
        let new = match new_endpoint(&self.api, account, body, RepeatedNames::default(), planned).await {
            Ok(new) => new,
            Err(error) => return refused(&error),
        };
        let external_id = new.settings.external_id.clone().expect("every body names one");
        let id = if self.dry_run {
            if owner.endpoints >= self.max_endpoints {
                return refused_by_store(StoreError::LimitReached(self.max_endpoints));
            }
            None
        } else {
            match self.store.create_endpoint(account, new, None).await {
                Ok(made) => Some(made.resource.id.to_string()),
                // Another import has just made it.
                Err(StoreError::ExternalIdTaken) => {
                    let id = self.store.endpoint_named(account, external_id).await?;
                    return Ok(Outcome::Exists(id.to_string()));
                }
                Err(error) => return refused_by_store(error),
            }
        };
        owner.endpoints += 1;
        owner.named.insert(external_id.to_string(), id.clone().unwrap_or_default());
        Ok(Outcome::Made(id))
    }

    /// The bound on the body of a call.
    fn too_large(&self, body: &Body) -> Option<Outcome> {
        let size = serde_json::to_string(body).map_or(usize::MAX, |text| text.len());
        let detail = || format!("as JSON it is larger than {} bytes (limits.max_body)", self.max_body);
        (size > self.max_body).then(|| Outcome::Refused(vec![Fault { field: None, detail: detail() }]))
    }
}

/// What is wrong with a thing; an error where nothing is, and the import cannot go on now.
fn refused(error: &ApiError) -> anyhow::Result<Outcome> {
    if error.status() >= 500 {
        bail!(error.detail(Language::English));
    }
    let faults = error.shown(Language::English).into_iter().map(|fault| {
        let field = fault.field().map(str::to_owned);
        Fault { field, detail: fault.detail }
    });
    Ok(Outcome::Refused(faults.collect()))
}

/// The same where the database refuses.
fn refused_by_store(error: StoreError) -> anyhow::Result<Outcome> {
    let told = ApiError::from(error.clone());
    if told.status() >= 500 { Err(error.into()) } else { refused(&told) }
}
