//! `GET /egress`: the addresses that requests to receivers come from, as the operator has named them. Customers allow
//! them in their firewalls. It is public and needs no key.

use axum::body::Body;
use axum::http::Response;
use serde::Serialize;

use super::Api;
use super::envelope::{Answer, RequestInfo};
use super::error::Language;

/// The addresses, and what to do with them.
#[derive(Serialize)]
pub struct PublicAddresses {
    /// Addresses and networks; none where the operator has named none.
    pub addresses: Vec<String>,
    /// What the addresses are for, in a sentence.
    pub detail: &'static str,
}

impl PublicAddresses {
    /// The addresses of the settings, with a sentence in this language.
    pub fn of(api: &Api, language: Language) -> Self {
        let addresses = api.changing.read().public_addresses.clone();
        let detail = match (&addresses[..], language) {
            ([], Language::English) => {
                "The operator of this server has not named the addresses that its requests come from."
            }
            ([], Language::Spanish) => {
                "El operador de este servidor no ha indicado las direcciones de las que vienen sus solicitudes."
            }
            (_, Language::English) => {
                "Requests to receivers come from these addresses and from no others. Allow all of them in your \
                 firewall, and look here again from time to time."
            }
            (_, Language::Spanish) => {
                "Las solicitudes a los receptores vienen de estas direcciones y de ninguna otra. Permítelas todas en \
                 tu cortafuegos y vuelve a mirar aquí de vez en cuando."
            }
        };
        Self { addresses, detail }
    }

    /// As JSON, in the shape of every answer.
    pub fn answer(api: &Api, info: &RequestInfo) -> Response<Body> {
        Answer::new(200, &PublicAddresses::of(api, info.language)).into_response(&info.id)
    }
}
