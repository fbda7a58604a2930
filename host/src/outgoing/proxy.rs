//! The credentials that a proxy asks for.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use caxton_control::outgoing::ProxySpec;
use http::HeaderValue;

use crate::message::HttpCallError;
use crate::secrets::Secrets;

/// Returns the header with the credentials of a proxy, with the values that its secrets have now; `None` if it asks for
/// none.
pub(super) fn authorization(proxy: &ProxySpec, secrets: &Secrets) -> Result<Option<HeaderValue>, HttpCallError> {
    let values = secrets.texts();
    let resolved = proxy.resolve_credentials(|name| values.get(name)).map_err(|name| {
        HttpCallError::Configuration(format!("the secret `{name}` has no value, and `outgoing.proxy` has it"))
    })?;
    let Some(credentials) = resolved else { return Ok(None) };
    let text = format!("Basic {}", BASE64_STANDARD.encode(credentials));
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| HttpCallError::Configuration("the credentials of `outgoing.proxy` cannot be sent".to_owned()))?;
    // In no debug output, and in no table of a compressor.
    value.set_sensitive(true);
    Ok(Some(value))
}
