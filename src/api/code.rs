//! Every error code that the API can answer, with its status and its detail in English and Spanish.

use serde::{Deserialize, Serialize};

/// A language that details are written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Language {
    /// English, which is also the answer to any other language.
    #[default]
    English,
    /// Spanish.
    Spanish,
}

impl Language {
    /// Chooses by an `Accept-Language` header (RFC 9110, section 12.5.4): the highest weight wins, the first among
    /// equals.
    pub fn from_header(header: &str) -> Self {
        let mut best = (Self::English, 0.0);
        for part in header.split(',').take(32) {
            let mut pieces = part.split(';');
            let tag = pieces.next().unwrap_or("").trim().to_ascii_lowercase();
            let weight = pieces
                .find_map(|piece| piece.trim().strip_prefix("q=").map(|q| q.trim().parse::<f32>().unwrap_or(0.0)))
                .unwrap_or(1.0);
            let language = match tag.split('-').next() {
                Some("en" | "*") => Self::English,
                Some("es") => Self::Spanish,
                _ => continue,
            };
            if weight > best.1 {
                best = (language, weight);
            }
        }
        best.0
    }
}

macro_rules! codes {
    ($($variant:ident $status:literal $code:literal $en:literal $es:literal;)*) => {
        /// What went wrong. The name is stable and never translated.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
        pub enum Code {
            $(#[doc = concat!("`", $code, "`")] #[serde(rename = $code)] $variant),*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// The name outside.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $code),* }
            }

            /// The HTTP status.
            pub fn status(self) -> u16 {
                match self { $(Code::$variant => $status),* }
            }

            pub(super) fn template(self, language: Language) -> &'static str {
                match (self, language) {
                    $((Code::$variant, Language::English) => $en, (Code::$variant, Language::Spanish) => $es),*
                }
            }
        }
    };
}

codes! {
    BodyEmpty 400 "body_empty"
        "The request body is empty; a JSON object is expected."
        "El cuerpo de la solicitud está vacío; se espera un objeto JSON.";
    InvalidJson 400 "invalid_json"
        "The request body is not a valid JSON object: {}."
        "El cuerpo de la solicitud no es un objeto JSON válido: {}.";
    InvalidRequest 400 "invalid_request" "The request is not valid HTTP/1.1." "La solicitud no es HTTP/1.1 válido.";
    InvalidIdempotencyKey 400 "invalid_idempotency_key"
        "The Idempotency-Key header must have 1 to 255 letters, digits, hyphens or underscores."
        "La cabecera Idempotency-Key debe tener de 1 a 255 letras, dígitos, guiones o guiones bajos.";
    UrlDnsFailed 400 "url_dns_failed" "The host {} could not be resolved." "No se pudo resolver el host {}.";
    UrlSsrfBlocked 400 "url_ssrf_blocked"
        "The host {} is or resolves to a private, local or reserved address, to which nothing is sent."
        "El host {} es o resuelve a una dirección privada, local o reservada, a la que no se envía nada.";
    UrlPortBlocked 400 "url_port_blocked"
        "This server sends nothing to port {}."
        "Este servidor no envía nada al puerto {}.";
    Unauthorized 401 "unauthorized"
        "Invalid or missing authentication credentials."
        "Credenciales de autenticación inválidas o ausentes.";
    Forbidden 403 "forbidden"
        "You do not have permission to access this resource."
        "No tienes permiso para acceder a este recurso.";
    KeyExpires 403 "key_expires"
        "A key that expires invites nobody and gives nobody a higher role. Use a key without an end, or the dashboard."
        "Una clave que caduca no invita a nadie ni da a nadie un rol mayor. Usa una clave sin fin, o el panel.";
    NotFound 404 "not_found" "The requested resource does not exist." "El recurso solicitado no existe.";
    MethodNotAllowed 405 "method_not_allowed"
        "This method is not allowed here; see the Allow header."
        "Este método no está permitido aquí; consulta la cabecera Allow.";
    IdempotencyKeyInProgress 409 "idempotency_key_in_progress"
        "A request with this Idempotency-Key is still being processed."
        "Una solicitud con esta Idempotency-Key todavía se está procesando.";
    EventTypeExists 409 "event_type_exists" "The event type {} already exists." "El tipo de evento {} ya existe.";
    OrderingInvalid 422 "webhook_ordering_invalid" "ordering must be none or fifo." "ordering debe ser none o fifo.";
    PayloadExpired 409 "payload_expired"
        "The body of this delivery is no longer kept, so it cannot be sent again."
        "El cuerpo de esta entrega ya no se conserva, así que no se puede reenviar.";
    RetentionInvalid 422 "retention_invalid"
        "A retention must be a whole number of days from 1 to 3650, or null."
        "Una retención debe ser un número entero de días de 1 a 3650, o null.";
    DeliveryUnderWay 409 "delivery_under_way"
        "The delivery is still under way: only one that has succeeded or failed can be sent again."
        "La entrega sigue en curso: solo se puede reenviar una que haya terminado con éxito o haya fallado.";
    LastOwner 409 "last_owner"
        "This is the last owner, and somebody must be one. Make another user an owner first."
        "Es el último propietario, y alguien debe serlo. Haz propietario antes a otro usuario.";
    ReplayLimitReached 409 "replay_limit_reached"
        "There are {} unfinished replays already, as many as the endpoint or its account may have."
        "Ya hay {} repeticiones sin terminar, tantas como puede tener el endpoint o su cuenta.";
    BodyTooLarge 413 "body_too_large"
        "The request body is larger than {} bytes."
        "El cuerpo de la solicitud supera {} bytes.";
    UriTooLong 414 "uri_too_long"
        "The request's path and query are too long."
        "La ruta y la consulta de la solicitud son demasiado largas.";
    UnsupportedMediaType 415 "unsupported_media_type" "The Content-Type must be {}." "El Content-Type debe ser {}.";
    IdempotencyKeyReused 422 "idempotency_key_reused"
        "This Idempotency-Key was used with another request body."
        "Esta Idempotency-Key se usó con otro cuerpo de solicitud.";
    UrlRequired 422 "webhook_url_required" "url is required." "url es obligatorio.";
    UrlInvalidType 422 "webhook_url_invalid_type" "url must be a string." "url debe ser una cadena.";
    UrlEmpty 422 "webhook_url_empty" "url must not be empty." "url no debe estar vacío.";
    UrlTooLong 422 "webhook_url_too_long"
        "url must have at most 2048 characters."
        "url debe tener como máximo 2048 caracteres.";
    UrlInvalidFormat 422 "webhook_url_invalid_format"
        "url must be an absolute http(s) URL without user info."
        "url debe ser una URL http(s) absoluta sin información de usuario.";
    UrlNotHttps 422 "webhook_url_not_https" "url must use https." "url debe usar https.";
    EventsRequired 422 "webhook_events_required"
        "events must name at least one event type."
        "events debe indicar al menos un tipo de evento.";
    EventsTooMany 422 "webhook_events_too_many"
        "events must name at most 10 event types."
        "events debe indicar como máximo 10 tipos de evento.";
    EventInvalid 422 "webhook_event_invalid"
        "events must be a list of known event types, * for all of them, or wildcards such as order.*; this entry is \
         not valid: {}."
        "events debe ser una lista de tipos de evento conocidos, * para todos, o comodines como order.*; esta entrada \
         no es válida: {}.";
    DescriptionInvalidType 422 "webhook_description_invalid_type"
        "description must be a string or null."
        "description debe ser una cadena o null.";
    DescriptionTooLong 422 "webhook_description_too_long"
        "description must have at most 255 characters."
        "description debe tener como máximo 255 caracteres.";
    MetadataInvalid 422 "webhook_metadata_invalid"
        "metadata must be an object of up to 20 keys (1 to 64 letters, digits, hyphens or underscores) with strings of \
         up to 512 characters, or null."
        "metadata debe ser un objeto de hasta 20 claves (de 1 a 64 letras, dígitos, guiones o guiones bajos) con \
         cadenas de hasta 512 caracteres, o null.";
    ExternalIdInvalid 422 "webhook_external_id_invalid"
        "external_id must be 1 to 255 letters, digits, dots, underscores, colons or hyphens that begin with a letter \
         or digit, and neither a UUID nor one of deliveries, replays, statistics and filters; or null."
        "external_id debe ser de 1 a 255 letras, dígitos, puntos, guiones bajos, dos puntos o guiones que empiecen por \
         letra o dígito, y no un UUID ni uno de deliveries, replays, statistics y filters; o null.";
    ExternalIdTaken 422 "webhook_external_id_taken"
        "Another endpoint of the account has this external_id."
        "Otro endpoint de la cuenta tiene este external_id.";
    ChannelsInvalid 422 "webhook_channels_invalid"
        "channels must be a list of 1 to 10 distinct strings of 1 to 128 letters, digits, dots, underscores, colons or \
         hyphens, or null."
        "channels debe ser una lista de 1 a 10 cadenas distintas de 1 a 128 letras, dígitos, puntos, guiones bajos, \
         dos puntos o guiones, o null.";
    TimeoutSecondsInvalid 422 "webhook_timeout_seconds_invalid"
        "timeout_seconds must be a whole number from 1 to 120, or null."
        "timeout_seconds debe ser un número entero de 1 a 120, o null.";
    MaxInFlightInvalid 422 "webhook_max_in_flight_invalid"
        "max_in_flight must be a whole number from 1 to {}, or null."
        "max_in_flight debe ser un número entero de 1 a {}, o null.";
    RetryScheduleInvalid 422 "webhook_retry_schedule_invalid"
        "retry_schedule must be a list of up to 20 whole numbers of seconds, each from 1 to 604800, or null."
        "retry_schedule debe ser una lista de hasta 20 números enteros de segundos, cada uno de 1 a 604800, o null.";
    HeadersInvalid 422 "webhook_headers_invalid"
        "headers must be an object of up to 20 names (1 to 64 letters, digits or hyphens, none of them twice) with \
         values of 1 to 1024 visible ASCII characters and inner spaces that do not begin with ..., or null; names of \
         the connection, such as Host, and names that this service sends are refused."
        "headers debe ser un objeto de hasta 20 nombres (de 1 a 64 letras, dígitos o guiones, ninguno repetido) con \
         valores de 1 a 1024 caracteres ASCII visibles y espacios interiores que no empiecen por ..., o null; se \
         rechazan los nombres de la conexión, como Host, y los que envía este servicio.";
    AuthenticationInvalid 422 "webhook_authentication_invalid"
        "authentication must be an object of type basic with username (without a colon) and password, of type bearer \
         with token, or of type oauth2 with token_url (as url), client_id, client_secret and maybe scope and audience, \
         each of 1 to 1024 visible ASCII characters; or null."
        "authentication debe ser un objeto de type basic con username (sin dos puntos) y password, de type bearer con \
         token, o de type oauth2 con token_url (como url), client_id, client_secret y quizá scope y audience, cada uno \
         de 1 a 1024 caracteres ASCII visibles; o null.";
    ClientCertificateInvalid 422 "webhook_client_certificate_invalid"
        "client_certificate must be an object of certificate (PEM, up to 5 certificates, the endpoint's own first, up \
         to 16384 characters) and private_key (PEM, its key, not encrypted, up to 8192 characters) for an https url, \
         or null: {}."
        "client_certificate debe ser un objeto de certificate (PEM, hasta 5 certificados, primero el del endpoint, \
         hasta 16384 caracteres) y private_key (PEM, su clave, sin cifrar, hasta 8192 caracteres) para una url https, \
         o null: {}.";
    RateLimitInvalid 422 "webhook_rate_limit_invalid"
        "rate_limit must be attempts/time such as 100/1m, with 1 to 10000 attempts in 1s to 1h, or null."
        "rate_limit debe ser intentos/tiempo, como 100/1m, con 1 a 10000 intentos en 1s a 1h, o null.";
    SecretInvalid 422 "webhook_secret_invalid"
        "secret must be 24 to 128 visible ASCII characters; what follows whsec_ must be padded base64 of 24 to 64 \
         bytes; the secret that the endpoint has is refused."
        "secret debe tener de 24 a 128 caracteres ASCII visibles; lo que sigue a whsec_ debe ser base64 con relleno de \
         24 a 64 bytes; se rechaza el secreto que el endpoint ya tiene.";
    FilterInvalid 422 "webhook_filter_invalid"
        "filter must be a JSON object of conditions on event, data and channels, of up to 4096 bytes, 8 levels and 32 \
         conditions, or null."
        "filter debe ser un objeto JSON de condiciones sobre event, data y channels, de hasta 4096 bytes, 8 niveles y \
         32 condiciones, o null.";
    StatusInvalid 422 "webhook_status_invalid"
        "status must be active or disabled."
        "status debe ser active o disabled.";
    NoValidFields 422 "no_valid_fields"
        "Nothing to change: give at least one of {}."
        "Nada que cambiar: indica al menos uno de {}.";
    WebhookLimitReached 422 "webhook_limit_reached"
        "The account has reached its limit of {} webhook endpoints."
        "La cuenta alcanzó su límite de {} endpoints de webhook.";
    OverlapInvalid 422 "webhook_overlap_invalid"
        "overlap_seconds must be an integer from 0 to 604800."
        "overlap_seconds debe ser un entero de 0 a 604800.";
    ReplayFromRequired 422 "replay_from_required"
        "from is required: the time from which on events are sent again."
        "from es obligatorio: el momento a partir del cual se reenvían los eventos.";
    ReplayFromInvalid 422 "replay_from_invalid"
        "from must be an ISO 8601 date, like 2026-05-01, or a date-time with its offset, like 2026-05-01T05:14:38Z, \
         and not in the future."
        "from debe ser una fecha ISO 8601, como 2026-05-01, o una fecha y hora con su desfase, como \
         2026-05-01T05:14:38Z, y no estar en el futuro.";
    ReplayToInvalid 422 "replay_to_invalid"
        "to must be an ISO 8601 date, or a date-time with its offset, that is not before from."
        "to debe ser una fecha ISO 8601, o una fecha y hora con su desfase, que no sea anterior a from.";
    ReplayStatusInvalid 422 "replay_status_invalid"
        "status must be failed, missed or all."
        "status debe ser failed, missed o all.";
    InvalidFilter 422 "invalid_filter" "This filter cannot be read: {}." "Este filtro no se puede leer: {}.";
    EventTypeRequired 422 "event_required"
        "event is required: the name of an event type."
        "event es obligatorio: el nombre de un tipo de evento.";
    EventTypeUnknown 422 "event_unknown"
        "event must be the name of an event type in the catalog, which has no such type: {}."
        "event debe ser el nombre de un tipo de evento del catálogo, que no tiene este tipo: {}.";
    EventDataRequired 422 "event_data_required" "data is required." "data es obligatorio.";
    EventDataInvalid 422 "event_data_invalid"
        "data must be a JSON object that matches the event type's schema: {}."
        "data debe ser un objeto JSON que cumpla el esquema del tipo de evento: {}.";
    EventTimestampInvalid 422 "event_timestamp_invalid"
        "timestamp must be an ISO 8601 date-time with its offset, like 2026-05-01T05:14:38Z."
        "timestamp debe ser una fecha y hora ISO 8601 con su desfase, como 2026-05-01T05:14:38Z.";
    EventChannelsInvalid 422 "event_channels_invalid"
        "channels must be a list of 1 to 5 distinct strings of 1 to 128 letters, digits, dots, underscores, colons or \
         hyphens."
        "channels debe ser una lista de 1 a 5 cadenas distintas de 1 a 128 letras, dígitos, puntos, guiones bajos, \
         dos puntos o guiones.";
    EventAccountRequired 422 "event_account_required"
        "account_id is required with an operator key."
        "account_id es obligatorio con una clave de operador.";
    BatchRequired 422 "events_required"
        "events must hold at least one event."
        "events debe contener al menos un evento.";
    BatchTooMany 422 "events_too_many"
        "A batch holds at most 1000 events."
        "Un lote contiene como máximo 1000 eventos.";
    BatchInvalid 422 "events_invalid" "events must be a list of objects." "events debe ser una lista de objetos.";
    TypeNameRequired 422 "event_type_name_required" "name is required." "name es obligatorio.";
    TypeNameInvalid 422 "event_type_name_invalid"
        "name must be lowercase letters, digits and underscores in parts separated by dots, up to 128 characters, and \
         not test."
        "name debe ser letras minúsculas, dígitos y guiones bajos en partes separadas por puntos, hasta 128 \
         caracteres, y no test.";
    TypeDescriptionInvalid 422 "event_type_description_invalid"
        "description must be a string of up to 1000 characters, or null."
        "description debe ser una cadena de hasta 1000 caracteres, o null.";
    TypeSchemaInvalid 422 "event_type_schema_invalid"
        "schema must be a JSON Schema without references to other documents, or null: {}."
        "schema debe ser un JSON Schema sin referencias a otros documentos, o null: {}.";
    TypeExampleInvalid 422 "event_type_example_invalid"
        "example must be an object that matches schema, or null: {}."
        "example debe ser un objeto que cumpla schema, o null: {}.";
    AccountMetadataInvalid 422 "account_metadata_invalid"
        "metadata must be an object of up to 20 keys (1 to 64 letters, digits, hyphens or underscores) with strings of \
         up to 512 characters, or null."
        "metadata debe ser un objeto de hasta 20 claves (de 1 a 64 letras, dígitos, guiones o guiones bajos) con \
         cadenas de hasta 512 caracteres, o null.";
    AccountExternalIdInvalid 422 "account_external_id_invalid"
        "external_id must be 1 to 255 letters, digits, dots, underscores, colons or hyphens that begin with a letter \
         or digit, and no UUID; or null."
        "external_id debe ser de 1 a 255 letras, dígitos, puntos, guiones bajos, dos puntos o guiones que empiecen por \
         letra o dígito, y no un UUID; o null.";
    AccountExternalIdTaken 422 "account_external_id_taken"
        "Another account has this external_id."
        "Otra cuenta tiene este external_id.";
    AccountEgressNetworksInvalid 422 "account_egress_networks_invalid"
        "The networks of an account must be a list of up to 64 distinct ones such as 10.20.0.0/16 or fd12:3456::/48, \
         without bits beyond their length, or null."
        "Las redes de una cuenta deben ser una lista de hasta 64 distintas como 10.20.0.0/16 o fd12:3456::/48, sin \
         bits más allá de su longitud, o null.";
    NameRequired 422 "name_required" "name is required." "name es obligatorio.";
    NameInvalid 422 "name_invalid"
        "name must be a string of 1 to 255 characters, none of them a control character."
        "name debe ser una cadena de 1 a 255 caracteres, ninguno de control.";
    PermissionsRequired 422 "permissions_required"
        "permissions must name at least one permission."
        "permissions debe indicar al menos un permiso.";
    PermissionInvalid 422 "permission_invalid"
        "permissions must be a list of known permissions; this permission is unknown: {}."
        "permissions debe ser una lista de permisos conocidos; este permiso es desconocido: {}.";
    ExpiresAtInvalid 422 "expires_at_invalid"
        "expires_at must be an ISO 8601 date-time in the future with its offset, or null."
        "expires_at debe ser una fecha y hora ISO 8601 futura con su desfase, o null.";
    ApiKeyLimitReached 422 "api_key_limit_reached"
        "The account has reached its limit of {} API keys. Revoke one that is not used; expired ones count too."
        "La cuenta alcanzó su límite de {} claves de API. Revoca una que no se use; las caducadas también cuentan.";
    EmailRequired 422 "email_required" "email is required." "email es obligatorio.";
    EmailInvalid 422 "email_invalid"
        "email must be an e-mail address of up to 254 characters."
        "email debe ser una dirección de correo de hasta 254 caracteres.";
    EmailTaken 422 "email_taken" "Somebody already signs in with {}." "Alguien ya inicia sesión con {}.";
    RoleInvalid 422 "role_invalid"
        "role must be owner, developer or viewer."
        "role debe ser owner, developer o viewer.";
    PortalPermissionInvalid 422 "portal_permission_invalid"
        "A portal link cannot have the permission {}."
        "Un enlace al portal no puede tener el permiso {}.";
    ExpiresInInvalid 422 "expires_in_invalid"
        "expires_in must be a whole number of seconds from 60 to 86400."
        "expires_in debe ser un número entero de segundos de 60 a 86400.";
    BrandInvalid 422 "brand_invalid"
        "brand must be a string of 1 to 60 characters, or null."
        "brand debe ser una cadena de 1 a 60 caracteres, o null.";
    ColorInvalid 422 "color_invalid"
        "color must be a colour like #0b5cad, or null."
        "color debe ser un color como #0b5cad, o null.";
    FrameOriginsInvalid 422 "frame_origins_invalid"
        "frame_origins must be a list of up to 10 origins like https://app.example.com."
        "frame_origins debe ser una lista de hasta 10 orígenes como https://app.example.com.";
    HeadersTooLarge 431 "headers_too_large"
        "The request has too many headers, or too large ones."
        "La solicitud tiene demasiadas cabeceras, o demasiado grandes.";
    RateLimitExceeded 429 "rate_limit_exceeded"
        "Rate limit exceeded. Try again in {} seconds."
        "Límite de solicitudes superado. Inténtalo de nuevo en {} segundos.";
    InternalError 500 "internal_error"
        "An internal error occurred. It was logged with this request's id."
        "Ocurrió un error interno. Quedó registrado con el id de esta solicitud.";
    Unavailable 503 "unavailable"
        "The service is temporarily unavailable. Try again soon."
        "El servicio no está disponible temporalmente. Inténtalo pronto de nuevo.";
}

impl Code {
    /// The detail as it may read, for the reference.
    pub fn example(self, language: Language) -> String {
        self.example_of(language, "name, description")
    }

    /// The same for a call whose body has these fields.
    pub fn example_of(self, language: Language, fields: &str) -> String {
        let words = |english, spanish| if language == Language::English { english } else { spanish };
        let argument = match self {
            Self::InvalidJson => {
                words("it ends early at line 1 column 12", "termina antes de tiempo en la línea 1, columna 12")
            }
            Self::UrlDnsFailed | Self::UrlSsrfBlocked => "hooks.example.com",
            Self::UrlPortBlocked => "22",
            Self::EventTypeExists => "order.shipped",
            Self::BodyTooLarge => "262144",
            Self::UnsupportedMediaType => "application/json",
            Self::EventInvalid | Self::EventTypeUnknown => "order.lost",
            Self::NoValidFields => fields,
            Self::WebhookLimitReached => "50",
            Self::MaxInFlightInvalid => "64",
            Self::ReplayLimitReached => "10",
            Self::ApiKeyLimitReached => "100",
            Self::InvalidFilter => words("validation_id takes a UUID", "validation_id admite un UUID"),
            Self::EventDataInvalid => {
                words("\"order\" is a required property at the top", "no cumple el esquema en el nivel superior")
            }
            Self::ClientCertificateInvalid => words("the certificate has expired", "el certificado ha caducado"),
            Self::TypeSchemaInvalid => words("a schema is an object", "un esquema es un objeto"),
            Self::TypeExampleInvalid => words("it is no object", "no es un objeto"),
            Self::PermissionInvalid => "webhooks:fly",
            Self::PortalPermissionInvalid => "api_keys:write",
            Self::EmailTaken => "ana@example.com",
            Self::RateLimitExceeded => "45",
            _ => "",
        };
        self.template(language).replace("{}", argument)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_with_the_highest_weight_is_chosen() {
        for (header, language) in [
            ("", Language::English),
            ("es", Language::Spanish),
            ("es-MX,es;q=0.9,en;q=0.8", Language::Spanish),
            ("en-US,es;q=0.9", Language::English),
            ("fr, es;q=0.5, en;q=0.4", Language::Spanish),
            ("de", Language::English),
            ("es;q=0, en", Language::English),
            ("es;q=abc", Language::English),
        ] {
            assert_eq!(Language::from_header(header), language, "{header:?}");
        }
    }

    #[test]
    fn codes_are_unique_and_both_languages_name_the_same_things() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            let places = |language| code.template(language).matches("{}").count();
            assert_eq!(places(Language::English), places(Language::Spanish), "{}", code.name());
            assert!(!code.example(Language::English).contains(": ."), "{} has no example", code.name());
        }
    }
}
