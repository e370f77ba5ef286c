//! What an owner can set of an endpoint. `settings!` makes the settings and their change from one list of attributes.

use super::endpoint::{EndpointStatus, Ordering};
use super::url::ReceiverUrl;

/// A structure of attributes, and a structure of changes to them.
macro_rules! settings {
    (
        $(#[$of_settings:meta])* $settings:ident
        $(#[$of_change:meta])* $change:ident
        { $($(#[$about:meta])* $attribute:ident: $type:ty,)+ }
    ) => {
        $(#[$of_settings])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $settings {
            $($(#[$about])* pub $attribute: $type,)+
        }

        $(#[$of_change])*
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct $change {
            $($(#[$about])* pub $attribute: Option<$type>,)+
            /// `active` (which clears the failures) or `disabled`.
            pub status: Option<EndpointStatus>,
        }

        impl $change {
            /// The attributes that it names.
            pub fn fields(&self) -> Vec<&'static str> {
                let named = [
                    $((stringify!($attribute), self.$attribute.is_some()),)+
                    ("status", self.status.is_some()),
                ];
                named.into_iter().filter(|(_, is_named)| *is_named).map(|(name, _)| name).collect()
            }

            /// The settings with this change; the status is no setting.
            pub fn applied_to(self, before: $settings) -> $settings {
                $settings { $($attribute: self.$attribute.unwrap_or(before.$attribute),)+ }
            }
        }
    };
}

settings! {
    /// What an owner has set of an endpoint.
    EndpointSettings
    /// What an owner changes of an endpoint; `None` stays as it is.
    EndpointChange
    {
        /// The receiver, as registered.
        url: String,
        /// Event types, distinct, in the order given.
        events: Vec<String>,
        /// A label for people.
        description: Option<String>,
        /// In which order it gets its deliveries. A change holds for what is accepted from then on.
        ordering: Ordering,
    }
}

impl EndpointSettings {
    /// Settings with nothing but what an endpoint must have.
    pub fn new(url: &ReceiverUrl, events: Vec<String>) -> Self {
        Self { url: url.as_str().to_owned(), events, description: None, ordering: Ordering::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::url::Environment;

    #[test]
    fn a_change_names_what_it_sets_and_leaves_the_rest() {
        let url = ReceiverUrl::parse("http://127.0.0.1:9/", Environment::Development).expect("a URL");
        let before =
            EndpointSettings { description: Some("a".into()), ..EndpointSettings::new(&url, vec!["b".into()]) };
        let change = EndpointChange {
            description: Some(None),
            status: Some(EndpointStatus::Active),
            ordering: Some(Ordering::Fifo),
            ..EndpointChange::default()
        };
        assert_eq!(change.fields(), ["description", "ordering", "status"]);
        let after = EndpointSettings { ordering: Ordering::Fifo, ..EndpointSettings::new(&url, vec!["b".into()]) };
        assert_eq!(change.applied_to(before.clone()), after);
        assert_eq!(EndpointChange::default().applied_to(before.clone()), before);
    }
}
