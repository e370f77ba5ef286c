//! Password and code, which a user gives again for a step that a session alone may not do: the session may have been
//! stolen. The API decides which steps these are.

use maud::{Markup, html};

use super::form_errors::{fault, local};
use super::me;
use super::page_context::{Failure, PageContext};
use crate::api::{Confirmation, Session, SignInRefused};

/// The fields for password and code. Their names begin with `prefix`, because a page may have several forms.
pub fn fields(cx: &PageContext, prefix: &str) -> Markup {
    let two_factor = cx.session().is_some_and(Session::two_factor);
    html! {
        (me::current(cx, &format!("{prefix}current")))
        @if two_factor { (me::code(cx, &format!("{prefix}code"))) }
    }
}

/// What the user has typed into the fields whose names begin like this.
pub fn given<'a>(cx: &'a PageContext, prefix: &str) -> Confirmation<'a> {
    Confirmation { password: cx.field(&format!("{prefix}current")), code: cx.field(&format!("{prefix}code")) }
}

/// The page context with a confirmed caller, or why the confirmation was refused.
pub async fn confirmed(cx: PageContext, prefix: &str) -> Result<Result<PageContext, Failure>, Failure> {
    let session = cx.session().cloned().ok_or_else(|| Failure { status: 404, ..Failure::default() })?;
    match cx.dashboard.api.confirm(&cx.request_context, &session, given(&cx, prefix)).await {
        Ok(()) => Ok(Ok(PageContext { caller: cx.caller.clone().confirmed(), ..cx })),
        Err(refused) => Ok(Err(not_proved(&cx, refused))),
    }
}

/// Why the password and the code were refused.
pub fn not_proved(cx: &PageContext, refused: SignInRefused) -> Failure {
    let (status, told) = me::told(cx, refused);
    Failure { status, ..local(vec![fault(told, None)]) }
}
