//! From a method and a path to the call that they name.
//!
//! Pages go through the framework's router. Calls do not: it keeps what it has found in a map that each request carries,
//! and has three boxes made on the way to a handler, which together cost more than reading the event.

use std::pin::Pin;
use std::sync::Arc;

use axum::http::Method;
use percent_encoding::percent_decode_str;

use super::call::{Call, Door};
use super::envelope::Answer;
use super::error::{ApiError, Code};
use super::openapi::Route;

/// What answers a call that has passed the door.
pub type Handler = Arc<dyn Fn(Call) -> Answering + Send + Sync>;

type Answering = Pin<Box<dyn Future<Output = Result<Answer, ApiError>> + Send>>;

/// Every call, in the order of the reference, with its handler.
#[derive(Default)]
pub struct Surface(Vec<(Route, Handler)>);

impl Surface {
    /// With one call more.
    pub fn with<H, F>(mut self, route: Route, handler: H) -> Self
    where
        H: Fn(Call) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Answer, ApiError>> + Send + 'static,
    {
        self.0.push((route, Arc::new(move |call| Box::pin(handler(call)))));
        self
    }

    /// What is known of each call.
    pub fn routes(self) -> Vec<Route> {
        self.0.into_iter().map(|(route, _)| route).collect()
    }

    /// The calls by their paths.
    pub fn by_path(self) -> Calls {
        let mut places: Vec<Place> = Vec::new();
        for (Route { method, path, door, .. }, handler) in self.0 {
            let entrance = Entrance { method, door, handler };
            match places.iter_mut().find(|place| place.path == path) {
                Some(place) => place.entrances.push(entrance),
                None => places.push(Place { path, entrances: vec![entrance] }),
            }
        }
        let mut paths = matchit::Router::new();
        for place in places {
            paths.insert(place.path, place.entrances).expect("the paths of the surface are well formed");
        }
        Calls(Arc::new(paths))
    }
}

/// A path, while the calls are gathered by theirs.
struct Place {
    path: &'static str,
    entrances: Vec<Entrance>,
}

/// One method of a path.
struct Entrance {
    method: Method,
    door: Door,
    handler: Handler,
}

/// The calls by their paths. Clones share them.
#[derive(Clone)]
pub struct Calls(Arc<matchit::Router<Vec<Entrance>>>);

/// A call that was found by its path.
pub struct Found {
    /// What is checked before the handler runs.
    pub door: Door,
    /// The handler.
    pub handler: Handler,
    /// The named parts of the path without percent-encoding (RFC 3986, section 2.1); none where one of them is no text.
    pub params: Option<Vec<(String, String)>>,
}

impl Calls {
    /// The call that a request names: none where there is no such path, a refusal where it has other methods only.
    pub fn find(&self, method: &Method, path: &str) -> Option<Result<Found, ApiError>> {
        let place = self.0.at(path).ok()?;
        // What can be read can be asked for without its body (RFC 9110, section 9.3.2).
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let Some(entrance) = place.value.iter().find(|entrance| entrance.method == *method) else {
            return Some(Err(other_methods(place.value)));
        };
        let decoded = |value| Some(percent_decode_str(value).decode_utf8().ok()?.into_owned());
        let params = place.params.iter().map(|(name, value)| Some((name.to_owned(), decoded(value)?))).collect();
        Some(Ok(Found { door: entrance.door, handler: entrance.handler.clone(), params }))
    }
}

/// A refusal that names the methods that there are (RFC 9110, section 15.5.6).
fn other_methods(entrances: &[Entrance]) -> ApiError {
    let names = entrances.iter().map(|entrance| match entrance.method {
        Method::GET => "GET,HEAD",
        ref method => method.as_str(),
    });
    ApiError::from(Code::MethodNotAllowed).with_header("allow", names.collect::<Vec<_>>().join(","))
}
