//! JSON web tokens: the keys of an issuer, and the check of a token.

use caxton_control::access::{CallerIdentity, JwtSpec};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

/// Keys that a token without a key id is tried with: each costs a check of a signature.
const MAX_TRIED: usize = 4;

/// The public keys of an issuer.
pub(super) struct KeySet {
    keys: Vec<PublicKey>,
}

struct PublicKey {
    id: Option<String>,
    key: DecodingKey,
    family: AlgorithmFamily,
}

/// The claims that the host reads itself. The others are checked by [`Validation`].
#[derive(Deserialize)]
struct Claims {
    sub: String,
}

impl KeySet {
    /// Parses a JWK set.
    ///
    /// # Errors
    /// The reason why it is none, or has no key that can be used.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let set: JwkSet = serde_json::from_slice(bytes).map_err(|error| format!("it is no JWK set: {error}"))?;
        let keys: Vec<PublicKey> = set.keys.iter().filter_map(PublicKey::of).collect();
        if keys.is_empty() {
            return Err("it has no public key for signatures (RSA, EC or OKP)".to_owned());
        }
        Ok(Self { keys })
    }

    /// Checks a token, and returns its subject; `None` if it is not one that the route accepts. The reason goes to the
    /// log of the host, and not to the caller, who may be guessing.
    pub(super) fn check(&self, token: &str, spec: &JwtSpec) -> Option<CallerIdentity> {
        let refused = |why: &dyn std::fmt::Display| {
            tracing::debug!("a token of the issuer {} was refused: {why}", spec.issuer);
        };
        let header = decode_header(token).inspect_err(|error| refused(error)).ok()?;
        let fits = |key: &&PublicKey| match &header.kid {
            Some(id) => key.id.as_ref() == Some(id),
            None => true,
        };
        for PublicKey { key, family, .. } in self.keys.iter().filter(fits).take(MAX_TRIED) {
            // The algorithms follow from the key and never from the token, which could name a weaker one.
            let mut validation = Validation::new_for_family(*family);
            validation.set_issuer(&[&spec.issuer]);
            validation.set_audience(&[&spec.audience]);
            validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
            validation.validate_nbf = true;
            match decode::<Claims>(token, key, &validation) {
                Ok(token) => return CallerIdentity::jwt(&token.claims.sub),
                Err(error) => refused(&error),
            }
        }
        None
    }
}

/// Reads a text as a JSON web token and as a set of keys. The key with which the token is checked belongs to nobody.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn examine_token(text: &str) {
    const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    drop(KeySet::parse(text.as_bytes()));
    let keys = KeySet::parse(KEYS.as_bytes()).expect("the example of RFC 8037");
    let spec = JwtSpec { jwks: String::new(), issuer: "i".to_owned(), audience: "a".to_owned() };
    assert_eq!(keys.check(text, &spec), None, "nobody has signed with this key");
}

impl PublicKey {
    /// Returns the key of an entry of a set; `None` if it is not one for signatures. A shared key (`oct`) is not: whoever
    /// reads the set could make tokens.
    fn of(jwk: &Jwk) -> Option<Self> {
        let family = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa,
            AlgorithmParameters::EllipticCurve(_) => AlgorithmFamily::Ec,
            AlgorithmParameters::OctetKeyPair(_) => AlgorithmFamily::Ed,
            _ => return None,
        };
        if jwk.common.public_key_use.as_ref().is_some_and(|use_| *use_ != PublicKeyUse::Signature) {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).inspect_err(|error| tracing::warn!("a key of a JWK set: {error}")).ok()?;
        Some(Self { id: jwk.common.key_id.clone(), key, family })
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
    use serde_json::{Value, json};

    use super::*;

    /// A key pair of P-256 that was made for this test alone.
    const PRIVATE: &str = include_str!("testdata/jwt-ec.pem");

    fn spec() -> JwtSpec {
        JwtSpec { jwks: String::new(), issuer: "https://id.example".to_owned(), audience: "tickets".to_owned() }
    }

    fn set(id: Option<&str>) -> Value {
        let key = EncodingKey::from_ec_pem(PRIVATE.as_bytes()).unwrap();
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap()).unwrap();
        if let Some(id) = id {
            jwk["kid"] = id.into();
        }
        json!({ "keys": [jwk] })
    }

    fn token(claims: &Value, id: Option<&str>) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = id.map(str::to_owned);
        encode(&header, claims, &EncodingKey::from_ec_pem(PRIVATE.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn tokens_are_checked_by_signature_and_claims() {
        let keys = KeySet::parse(set(Some("k1")).to_string().as_bytes()).unwrap();
        let now = get_current_timestamp();
        let right =
            json!({ "sub": "user-7", "iss": "https://id.example", "aud": ["other", "tickets"], "exp": now + 60 });
        let with = |name: &str, value: Value| {
            let mut claims = right.clone();
            claims[name] = value;
            keys.check(&token(&claims, Some("k1")), &spec())
        };
        let whole = token(&right, Some("k1"));
        assert_eq!(keys.check(&whole, &spec()).unwrap().as_str(), "jwt:user-7");
        assert_eq!(keys.check(&token(&right, None), &spec()).unwrap().as_str(), "jwt:user-7");
        assert_eq!(keys.check(&token(&right, Some("k2")), &spec()), None, "a key that is not in the set");
        for (name, value) in [
            ("iss", json!("https://evil.example")),
            ("aud", json!("billing")),
            ("exp", json!(now - 3_600)),
            ("nbf", json!(now + 3_600)),
            ("sub", json!("user 7")),
            ("sub", json!("")),
        ] {
            assert_eq!(with(name, value.clone()), None, "{name} = {value}");
        }
        for name in ["iss", "aud", "exp", "sub"] {
            let mut claims = right.clone();
            claims.as_object_mut().unwrap().remove(name);
            assert_eq!(keys.check(&token(&claims, Some("k1")), &spec()), None, "without {name}");
        }
        let mut forged = whole.clone().into_bytes();
        let last = forged.len() - 5;
        forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
        assert_eq!(keys.check(std::str::from_utf8(&forged).unwrap(), &spec()), None);
        // Signed with the public key as if it were a shared one, or not at all.
        let public = set(None)["keys"][0]["x"].as_str().unwrap().to_owned();
        let shared = EncodingKey::from_secret(public.as_bytes());
        if let Ok(shared) = encode(&Header::new(Algorithm::HS256), &right, &shared.unwrap()) {
            assert_eq!(keys.check(&shared, &spec()), None);
        }
        let (_, rest) = whole.split_once('.').unwrap();
        assert_eq!(keys.check(&format!("eyJhbGciOiJub25lIn0.{rest}"), &spec()), None);
        assert_eq!(keys.check("nonsense", &spec()), None);
    }

    #[test]
    fn sets_without_public_keys_are_refused() {
        let wrong = |text: &str| KeySet::parse(text.as_bytes()).err().unwrap();
        assert!(wrong("{").contains("no JWK set"));
        assert!(wrong(r#"{"keys":[]}"#).contains("no public key"));
        assert!(wrong(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#).contains("no public key"));
    }
}
