//! The authentication of callers of agents' routes: what a route asks for, as it is written in the declaration, and the
//! parts of a request that answer it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::rate::Rate;
use super::tokens::{TokenDigest, TokenName};
use crate::names::NameError;

/// The header in which the host tells an agent who calls it. It is dropped where it comes from outside.
pub const CALLER_HEADER: &str = "caxton-caller";
/// The header of a signed request.
pub const SIGNATURE_HEADER: &str = "caxton-signature";
/// The longest difference between the time of a signature and the host's clock. A request that is recorded on the way
/// can be repeated for so long.
pub const SIGNATURE_AGE: Duration = Duration::from_secs(300);
/// The longest subject of a JWT that becomes an identity, in bytes.
const MAX_SUBJECT: usize = 256;

/// The table `auth` of a route: the credentials of which a caller needs one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RouteAuth {
    /// The tokens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<CallerToken>,
    /// The keys of callers that sign their requests, by the name of the caller.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hmac: BTreeMap<TokenName, KeySource>,
    /// The issuer of JSON web tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtSpec>,
}

impl RouteAuth {
    /// Returns `true` if it names no credential at all.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.hmac.is_empty() && self.jwt.is_none()
    }

    /// Returns the name of the caller whose token is declared with this digest. Tokens that are named only are looked up
    /// by the host.
    pub fn declared_caller(&self, digest: &TokenDigest) -> Option<&TokenName> {
        let mut found = None;
        for token in &self.tokens {
            // All of them are compared, so that the time does not tell where in the list a token is.
            if let CallerToken::Declared(name, declared) = token
                && declared.is(digest)
            {
                found = Some(name);
            }
        }
        found
    }

    /// Returns `true` if the token of this name may call the route.
    pub fn names(&self, name: &TokenName) -> bool {
        self.tokens.iter().any(|token| matches!(token, CallerToken::Named(named) if named == name))
    }
}

/// A token of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerToken {
    /// The name of a token that `caxton token make` has made.
    Named(TokenName),
    /// The name of a caller and the SHA-256 of its token.
    Declared(TokenName, TokenDigest),
}

/// The error for a text that is not a token of a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallerTokenError {
    /// The name breaks the rule for names.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The digest is none.
    #[error("after `=` comes `sha256:` and 64 hexadecimal digits")]
    Digest,
}

impl FromStr for CallerToken {
    type Err = CallerTokenError;

    fn from_str(text: &str) -> Result<Self, CallerTokenError> {
        let Some((name, digest)) = text.split_once('=') else { return Ok(Self::Named(text.parse()?)) };
        let digest = digest.strip_prefix("sha256:").and_then(TokenDigest::parse).ok_or(CallerTokenError::Digest)?;
        Ok(Self::Declared(name.parse()?, digest))
    }
}

impl fmt::Display for CallerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.pad(name.as_str()),
            Self::Declared(name, digest) => write!(f, "{name}=sha256:{digest}"),
        }
    }
}

impl Serialize for CallerToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The place of a shared key. The key itself is not in the declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file, relative to the folder of the declaration: `file:PATH`.
    File(String),
    /// An environment variable of the host: `env:NAME`.
    Variable(String),
}

impl KeySource {
    /// Parses `file:PATH` or `env:NAME`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':').filter(|(_, rest)| !rest.trim().is_empty())?;
        match kind {
            "file" => Some(Self::File(rest.to_owned())),
            "env" => Some(Self::Variable(rest.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{path}"),
            Self::Variable(name) => write!(f, "env:{name}"),
        }
    }
}

impl Serialize for KeySource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The table `auth.jwt`: JSON web tokens that a route accepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JwtSpec {
    /// The file with the public keys (a JWK set, RFC 7517), relative to the folder of the declaration.
    pub jwks: String,
    /// The issuer (`iss`) that a token has to have.
    pub issuer: String,
    /// The audience (`aud`) that a token has to have.
    pub audience: String,
}

/// The setting `rate` of a route: requests of one caller in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRate {
    count: u32,
    per: &'static str,
}

/// The times of a rate.
const TIMES: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3_600)];
/// The most requests of a rate.
const MAX_COUNT: u32 = 1_000_000;

impl RouteRate {
    /// Returns the rate.
    pub fn rate(self) -> Rate {
        let seconds = TIMES.iter().find(|(name, _)| *name == self.per).map_or(1, |(_, seconds)| *seconds);
        Rate::new(self.count, Duration::from_secs(seconds))
    }
}

/// The error for a text that is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a rate is a whole number from 1 to {MAX_COUNT}, `/`, and `s`, `m` or `h`")]
pub struct RateError;

impl FromStr for RouteRate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (count, per) = text.split_once('/').ok_or(RateError)?;
        // The parser of numbers would take a sign.
        let digits = count.bytes().all(|byte| byte.is_ascii_digit());
        let count =
            count.parse::<u32>().ok().filter(|count| digits && (1..=MAX_COUNT).contains(count)).ok_or(RateError)?;
        let (per, _) = TIMES.iter().find(|(name, _)| *name == per).ok_or(RateError)?;
        Ok(Self { count, per: *per })
    }
}

impl fmt::Display for RouteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.per)
    }
}

impl Serialize for RouteRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The identity of a caller, as agents see it: the kind of its credential and its name. With the kind, the subject of a
/// JWT is never taken for the name of a token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallerIdentity(String);

impl CallerIdentity {
    /// The caller of a token.
    pub fn token(name: &TokenName) -> Self {
        Self(format!("token:{name}"))
    }

    /// The caller of a signed request.
    pub fn hmac(name: &TokenName) -> Self {
        Self(format!("hmac:{name}"))
    }

    /// The subject of a JWT. `None` if it cannot stand in a header.
    pub fn jwt(subject: &str) -> Option<Self> {
        let is_plain = subject.bytes().all(|byte| byte.is_ascii_graphic());
        (is_plain && (1..=MAX_SUBJECT).contains(&subject.len())).then(|| Self(format!("jwt:{subject}")))
    }

    /// Returns the identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The signature of a request: `caller=NAME, time=SECONDS, hmac-sha256=HEX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestSignature {
    /// The name of the caller, which chooses the key.
    pub caller: TokenName,
    /// The time of the signature, in seconds since 1970.
    pub time: u64,
    /// The HMAC.
    pub mac: [u8; 32],
}

impl RequestSignature {
    /// Parses the value of the header.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut caller, mut time, mut mac) = (None, None, None);
        for part in text.split(',') {
            let (name, value) = part.trim().split_once('=')?;
            let slot_is_free = match name {
                "caller" => caller.replace(value.parse().ok()?).is_none(),
                "time" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                    time.replace(value.parse().ok()?).is_none()
                }
                "hmac-sha256" => mac.replace(TokenDigest::parse(value)?.bytes()).is_none(),
                _ => return None,
            };
            // Two of one name: which of them counts would be a guess.
            if !slot_is_free {
                return None;
            }
        }
        Some(Self { caller: caller?, time: time?, mac: mac? })
    }

    /// Returns `true` if the signature is neither too old nor from a time to come. `now` is in seconds since 1970.
    pub fn is_fresh(&self, now: u64) -> bool {
        self.time.abs_diff(now) <= SIGNATURE_AGE.as_secs()
    }
}

/// Returns the text that a signature is made of: method, path with query as sent, time, and the SHA-256 of the body.
pub fn signed_text(method: &str, target: &str, time: u64, body: &TokenDigest) -> String {
    // None of the parts has a line feed, so that no two requests have one text.
    format!("{method}\n{target}\n{time}\n{body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TokenName {
        text.parse().unwrap()
    }

    #[test]
    fn tokens_of_routes_are_read_back() {
        let digest = "0123456789abcdef".repeat(4);
        for text in ["shop", &format!("partner=sha256:{digest}")] {
            assert_eq!(text.parse::<CallerToken>().unwrap().to_string(), text);
        }
        for wrong in ["", "Shop", "shop=", "shop=sha256:12", &format!("shop={digest}"), &format!("=sha256:{digest}")] {
            assert!(wrong.parse::<CallerToken>().is_err(), "{wrong}");
        }
        let auth = RouteAuth {
            tokens: vec![CallerToken::Named(name("shop")), CallerToken::Declared(name("bank"), TokenDigest::of("x"))],
            ..RouteAuth::default()
        };
        assert_eq!(auth.declared_caller(&TokenDigest::of("x")), Some(&name("bank")));
        assert_eq!(auth.declared_caller(&TokenDigest::of("y")), None);
        assert!(auth.names(&name("shop")) && !auth.names(&name("bank")));
    }

    #[test]
    fn rates_are_read_back_and_bounded() {
        for text in ["1/s", "100/m", "1000000/h"] {
            assert_eq!(text.parse::<RouteRate>().unwrap().to_string(), text);
        }
        assert_eq!("2/m".parse::<RouteRate>().unwrap().rate(), Rate::new(2, Duration::from_secs(60)));
        for wrong in ["", "1", "0/s", "1000001/s", "1/d", "+1/s", "1/", "/s", "1 / s", "1.5/s"] {
            assert_eq!(wrong.parse::<RouteRate>(), Err(RateError), "{wrong}");
        }
    }

    #[test]
    fn signatures_are_parsed_strictly() {
        let mac = "ab".repeat(32);
        let whole = format!("caller=shop, time=1700000000, hmac-sha256={mac}");
        let parsed = RequestSignature::parse(&whole).unwrap();
        assert_eq!((parsed.caller.as_str(), parsed.time, parsed.mac), ("shop", 1_700_000_000, [0xab; 32]));
        for (now, fresh) in
            [(1_700_000_000, true), (1_700_000_300, true), (1_700_000_301, false), (1_699_999_699, false)]
        {
            assert_eq!(parsed.is_fresh(now), fresh, "{now}");
        }
        for wrong in [
            "",
            "caller=shop",
            &format!("caller=shop, time=1, hmac-sha256={mac}, caller=bank"),
            &format!("caller=shop, time=-1, hmac-sha256={mac}"),
            &format!("caller=Shop, time=1, hmac-sha256={mac}"),
            &format!("caller=shop, time=1, hmac-sha256={mac}0"),
            &format!("caller=shop, time=1, hmac-sha256={mac}, more=1"),
        ] {
            assert_eq!(RequestSignature::parse(wrong), None, "{wrong}");
        }
        let text = signed_text("POST", "/a?b=1", 7, &TokenDigest::of(""));
        assert_eq!(text, "POST\n/a?b=1\n7\ne3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn identities_have_their_kind_and_fit_a_header() {
        assert_eq!(CallerIdentity::token(&name("shop")).as_str(), "token:shop");
        assert_eq!(CallerIdentity::jwt("user-7").unwrap().as_str(), "jwt:user-7");
        for wrong in ["", "a b", "a\nb", "é", &"a".repeat(257)] {
            assert_eq!(CallerIdentity::jwt(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn key_sources_are_read_back() {
        for text in ["file:keys/shop.key", "env:SHOP_KEY"] {
            assert_eq!(KeySource::parse(text).unwrap().to_string(), text);
        }
        for wrong in ["", "file:", "env: ", "keys/shop.key", "http://x"] {
            assert_eq!(KeySource::parse(wrong), None, "{wrong}");
        }
    }
}
