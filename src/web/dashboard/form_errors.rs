//! The errors of a form: those that a page finds itself, and the refusals of the API with which a form is shown again.

use super::page_context::{Failure, Fault};

/// A refusal that a page makes itself.
pub fn local(faults: Vec<Fault>) -> Failure {
    Failure { status: 422, faults, retry_after: None }
}

/// A fault that a page finds itself.
pub fn fault(detail: String, field: Option<&str>) -> Fault {
    Fault { code: None, detail, field: field.map(str::to_owned), replays: Vec::new() }
}

/// A refusal with which a form is shown again, because its sender can mend it or wait. What is at fault in none of its
/// `fields` is told above it. Any other refusal is a page of its own.
pub fn mendable(mut failure: Failure, fields: &[&str]) -> Result<Failure, Failure> {
    if failure.faults.is_empty() || !matches!(failure.status, 400 | 409 | 413 | 422 | 429 | 503) {
        return Err(failure);
    }
    for fault in &mut failure.faults {
        fault.field.take_if(|field| !fields.contains(&field.as_str()));
    }
    Ok(failure)
}

/// The status of a page that shows a form again.
pub fn status_of(failure: &Failure) -> u16 {
    if matches!(failure.status, 413 | 429 | 503) { failure.status } else { 422 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_shown_again_where_its_sender_can_do_something() {
        let refused = |status| Failure { status, ..local(vec![fault(String::new(), Some("secret"))]) };
        let mended = mendable(refused(409), &["name"]).expect("mendable");
        assert_eq!((status_of(&mended), mended.of("secret").is_none()), (422, true));
        assert!(mendable(refused(422), &["secret"]).expect("mendable").of("secret").is_some());
        assert_eq!(status_of(&mendable(refused(429), &[]).expect("mendable")), 429);
        for status in [401, 403, 404, 500] {
            assert!(mendable(refused(status), &["secret"]).is_err(), "{status}");
        }
    }
}
