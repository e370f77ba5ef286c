//! Finds the call that a method and a path name.
//!
//! Pages go through the framework's router. Calls do not: the router keeps what it has found in a map that each request
//! carries, and boxes three values on the way to a handler, which together cost more than reading the event.

use std::pin::Pin;
use std::sync::Arc;

use axum::http::Method;
use percent_encoding::percent_decode_str;

use super::call::ApiCall;
use super::envelope::Answer;
use super::error::{ApiError, Code};
use super::openapi::Route;
use super::rules::RouteRules;

/// What answers a call that has passed the checks of its route.
pub type Handler = Arc<dyn Fn(ApiCall) -> Answering + Send + Sync>;

type Answering = Pin<Box<dyn Future<Output = Result<Answer, ApiError>> + Send>>;

/// Every route with its handler, in the order of the reference.
#[derive(Default)]
pub struct RouteList(Vec<(Route, Handler)>);

impl RouteList {
    /// Adds a route.
    pub fn with<H, F>(mut self, route: Route, handler: H) -> Self
    where
        H: Fn(ApiCall) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Answer, ApiError>> + Send + 'static,
    {
        self.0.push((route, Arc::new(move |call| Box::pin(handler(call)))));
        self
    }

    /// The routes without their handlers.
    pub fn routes(self) -> Vec<Route> {
        self.0.into_iter().map(|(route, _)| route).collect()
    }

    /// The routes by their paths.
    pub fn by_path(self) -> RouteTable {
        let mut paths: Vec<PathRoutes> = Vec::new();
        for (Route { method, path, rules, .. }, handler) in self.0 {
            let route = MethodRoute { method, rules, handler };
            match paths.iter_mut().find(|path_routes| path_routes.path == path) {
                Some(path_routes) => path_routes.methods.push(route),
                None => paths.push(PathRoutes { path, methods: vec![route] }),
            }
        }
        let mut table = matchit::Router::new();
        for path_routes in paths {
            table.insert(path_routes.path, path_routes.methods).expect("the paths of the routes are well formed");
        }
        RouteTable(Arc::new(table))
    }
}

/// A path with its methods, while the table is made.
struct PathRoutes {
    path: &'static str,
    methods: Vec<MethodRoute>,
}

/// One method of a path.
struct MethodRoute {
    method: Method,
    rules: RouteRules,
    handler: Handler,
}

/// The routes by their paths. Clones share them.
#[derive(Clone)]
pub struct RouteTable(Arc<matchit::Router<Vec<MethodRoute>>>);

/// A route that was found by its path.
pub struct MatchedRoute {
    /// What is checked before the handler runs.
    pub rules: RouteRules,
    /// The handler.
    pub handler: Handler,
    /// The named parts of the path without percent-encoding (RFC 3986, section 2.1); none where one of them is no text.
    pub params: Option<Vec<(String, String)>>,
}

impl RouteTable {
    /// The call that a request names: none where there is no such path, a refusal where it has other methods only.
    pub fn find(&self, method: &Method, path: &str) -> Option<Result<MatchedRoute, ApiError>> {
        let path_routes = self.0.at(path).ok()?;
        // What can be read can be asked for without its body (RFC 9110, section 9.3.2).
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let Some(route) = path_routes.value.iter().find(|route| route.method == *method) else {
            return Some(Err(other_methods(path_routes.value)));
        };
        let decoded = |value| Some(percent_decode_str(value).decode_utf8().ok()?.into_owned());
        let params = path_routes.params.iter().map(|(name, value)| Some((name.to_owned(), decoded(value)?))).collect();
        Some(Ok(MatchedRoute { rules: route.rules, handler: route.handler.clone(), params }))
    }
}

/// A refusal that names the methods that there are (RFC 9110, section 15.5.6).
fn other_methods(methods: &[MethodRoute]) -> ApiError {
    let names = methods.iter().map(|route| match route.method {
        Method::GET => "GET,HEAD",
        ref method => method.as_str(),
    });
    ApiError::from(Code::MethodNotAllowed).with_header("allow", names.collect::<Vec<_>>().join(","))
}
