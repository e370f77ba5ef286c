//! A person's browser, as far as the tests need one: it keeps cookies, follows redirects, and sends the forms of a
//! page.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::app::{Answer, App, Call};

/// What somebody looks through.
pub struct Browser {
    address: SocketAddr,
    cookies: BTreeMap<String, String>,
    language: &'static str,
}

/// A page that was shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its address, after redirects.
    pub path: String,
    pub answer: Answer,
    pub html: String,
}

impl Browser {
    pub fn new(app: &App) -> Self {
        Self { address: app.address, cookies: BTreeMap::new(), language: "en" }
    }

    pub fn in_spanish(mut self) -> Self {
        self.language = "es";
        self
    }

    /// The value of the only cookie that keeps somebody signed in.
    pub fn session(&self) -> Option<&str> {
        self.cookies.get("aldaba_session").map(String::as_str)
    }

    /// Takes over a cookie.
    pub fn set_session(&mut self, token: &str) {
        self.cookies.insert("aldaba_session".into(), token.into());
    }

    /// One request, without following where it leads.
    pub async fn once(&mut self, method: &str, path: &str, form: Option<&[(&str, &str)]>) -> Answer {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut call = Call::new(self.address, method, path)
            .header("accept", "text/html,application/xhtml+xml")
            .header("accept-language", self.language)
            .header("cookie", &cookies.join("; "));
        if let Some(form) = form {
            let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
            call = call.header("content-type", "application/x-www-form-urlencoded").body(body);
        }
        let answer = call.send().await;
        for set in answer.headers.get_all("set-cookie") {
            let set = set.to_str().expect("text");
            let (name, value) = set.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.into(), value.into());
            }
        }
        answer
    }

    /// Opens a page, and those that it leads to.
    pub async fn open(&mut self, path: &str) -> Shown {
        let answer = self.once("GET", path, None).await;
        self.follow(path, answer).await
    }

    async fn follow(&mut self, path: &str, mut answer: Answer) -> Shown {
        let mut path = path.to_owned();
        for _ in 0..5 {
            if answer.status != 303 {
                break;
            }
            path = answer.header("location").to_owned();
            answer = self.once("GET", &path, None).await;
        }
        let html = String::from_utf8_lossy(&answer.text).into_owned();
        Shown { path, answer, html }
    }

    /// Sends the form of a page that goes to `action`, with these fields over its own hidden ones.
    pub async fn submit(&mut self, page: &Shown, action: &str, fields: &[(&str, &str)]) -> Shown {
        let hidden = page.hidden(action);
        let mut form: Vec<(&str, &str)> = hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        form.retain(|(name, _)| !fields.iter().any(|(given, _)| given == name));
        form.extend_from_slice(fields);
        let answer = self.once("POST", action, Some(&form)).await;
        self.follow(action, answer).await
    }

    /// Signs in.
    pub async fn sign_in(&mut self, email: &str, password: &str, code: &str) -> Shown {
        let page = self.open("/sign-in").await;
        self.submit(&page, "/sign-in", &[("email", email), ("password", password), ("code", code)]).await
    }
}

impl Shown {
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.answer.status, status, "{}: {}", self.path, self.content());
        self
    }

    /// The page without what stands around it.
    pub fn content(&self) -> &str {
        self.html.split_once("<main").map_or(self.html.as_str(), |(_, content)| content)
    }

    /// The hidden fields of the form that goes to `action`.
    #[track_caller]
    fn hidden(&self, action: &str) -> Vec<(String, String)> {
        let marker = format!("action=\"{}\"", action.replace('&', "&amp;"));
        let at = self
            .html
            .find(&marker)
            .unwrap_or_else(|| panic!("no form to {action} in {}: {}", self.path, self.content()));
        let form = &self.html[at..];
        let form = &form[..form.find("</form>").expect("the end of the form")];
        let inputs = form.split("<input").skip(1).map(|input| input.split('>').next().unwrap_or(""));
        let value = |input: &str, name: &str| {
            let rest = input.split_once(&format!("{name}=\""))?.1;
            Some(rest.split('"').next()?.replace("&amp;", "&"))
        };
        let hidden = inputs.filter(|input| input.contains("type=\"hidden\""));
        hidden.filter_map(|input| Some((value(input, "name")?, value(input, "value")?))).collect()
    }

    /// Addresses on this server that the page leads to.
    pub fn links(&self) -> Vec<String> {
        let hrefs = self.html.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let own = hrefs.filter(|href| href.starts_with('/') && !href.starts_with("//"));
        own.map(|href| href.replace("&amp;", "&").split('#').next().unwrap_or("").to_owned()).collect()
    }
}
