//! The state that every page of the dashboard can reach: the API, and its calls in process.

use std::sync::Arc;

use crate::api::{Api, InProcessApi};

/// What every page can reach. Clones share it.
#[derive(Clone)]
pub(super) struct Dashboard(Arc<DashboardState>);

pub(super) struct DashboardState {
    pub api: Api,
    pub in_process: InProcessApi,
}

impl std::ops::Deref for Dashboard {
    type Target = DashboardState;

    fn deref(&self) -> &DashboardState {
        &self.0
    }
}

impl Dashboard {
    /// The dashboard of this API.
    pub fn new(api: Api) -> Self {
        Self(Arc::new(DashboardState { in_process: InProcessApi::new(api.clone()), api }))
    }
}
