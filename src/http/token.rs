//! Tokens that somebody else has signed (JWT), as proof of who asks. Signatures are the business of `jsonwebtoken`, which
//! compares those of HS256 in constant time; here is which keys count, what a token has to say, and what time it is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use crate::clock::Instant;
use crate::thread::check_resource;

/// The fewest bytes of a secret: as many as its signatures have (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// The fewest bytes of an RSA modulus (RFC 7518, 3.3).
const MODULUS_BYTES_MIN: usize = 256;

/// The most bytes of a file of keys, and the most keys of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const KEYS_MAX: usize = 100;

/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// How often a file of keys is looked at, at the most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Which tokens (JWT) open a server, and what they open: the threads of the resource that a claim of theirs names.
///
/// A token has to be signed with HS256 by a shared secret, or with RS256 or ES256 by one of the keys in a file; it has to
/// say when it expires, and, where that is asked for, for whom it is and who has made it.
#[derive(Debug, Clone)]
pub struct Jwt {
    signers: Arc<Signers>,
    claim: String,
    audience: Option<String>,
    issuer: Option<String>,
    leeway: Duration,
}

/// Why tokens cannot be checked as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// The secret could be guessed.
    #[error(
        "the secret has {found} bytes; one for HS256 has at least {SECRET_BYTES_MIN}, made by chance (`openssl rand -hex 32`)"
    )]
    WeakSecret {
        /// How many bytes it has.
        found: usize,
    },
    /// The file of keys cannot be read.
    #[error("the keys in {path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file of keys is none.
    #[error("{path} is no JSON Web Key Set: {why}")]
    NoKeySet {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl Jwt {
    /// Tokens that are signed with HS256 by this secret.
    ///
    /// # Errors
    /// [`JwtError::WeakSecret`] if it is shorter than 32 bytes.
    pub fn with_secret(secret: &SecretString) -> Result<Self, JwtError> {
        let bytes = secret.expose_secret().as_bytes();
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(JwtError::WeakSecret { found: bytes.len() });
        }
        let signer = Signer { id: None, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(bytes) };
        Ok(Self::by(Signers::Fixed(Arc::new([signer]))))
    }

    /// Tokens that are signed with RS256 or ES256 by one of the keys in this file, a JSON Web Key Set (RFC 7517). It is read
    /// again when it has changed; one that cannot be read then changes nothing, and is logged.
    ///
    /// # Errors
    /// If there is no such file, or it holds no such key.
    pub fn with_keys(path: impl Into<PathBuf>) -> Result<Self, JwtError> {
        let path = path.into();
        // In this order: what is written in between is read again.
        let stamp = Stamp::of(&path).map_err(|source| JwtError::Unreadable { path: path.clone(), source })?;
        let keys = read(&path)?;
        let kept = Kept { stamp: Some(stamp), looked_at: None, keys };
        Ok(Self::by(Signers::File { path, kept: Mutex::new(kept) }))
    }

    fn by(signers: Signers) -> Self {
        // Fails only if the program has chosen another one, which then counts.
        let _ = jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER.install_default();
        Self {
            signers: Arc::new(signers),
            claim: "resource".to_owned(),
            audience: None,
            issuer: None,
            leeway: Duration::from_secs(30),
        }
    }

    /// The claim that names the resource whose threads a token opens; `resource` unless it is said. A token without it opens
    /// nothing.
    #[must_use]
    pub fn claim(self, claim: impl Into<String>) -> Self {
        Self { claim: claim.into(), ..self }
    }

    /// Only tokens that are for this audience (`aud`).
    #[must_use]
    pub fn audience(self, audience: impl Into<String>) -> Self {
        Self { audience: Some(audience.into()), ..self }
    }

    /// Only tokens that this issuer has made (`iss`).
    #[must_use]
    pub fn issuer(self, issuer: impl Into<String>) -> Self {
        Self { issuer: Some(issuer.into()), ..self }
    }

    /// How far the clock of who has signed may be from this one; 30 seconds unless it is said.
    #[must_use]
    pub fn leeway(self, leeway: Duration) -> Self {
        Self { leeway, ..self }
    }

    /// The resource whose threads this token opens now.
    pub(super) async fn resource(&self, token: &str, now: Instant) -> Result<String, NotOpened> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(NotOpened::Forged("a token has at most 8192 bytes"));
        }
        let header = decode_header(token).map_err(|_| NotOpened::Forged("this is no key and no token"))?;
        if header.crit.is_some() {
            return Err(NotOpened::Forged("the token asks for extensions (crit) that are not known here"));
        }
        let keys = self.signers.keys(now).await;
        let claims = self.signed(token, &header, &keys)?;
        self.timely(&claims, now)?;
        match claims.get(&self.claim).and_then(Value::as_str) {
            Some(resource) if check_resource(resource).is_ok() => Ok(resource.to_owned()),
            _ => Err(NotOpened::Scopeless(self.claim.clone())),
        }
    }

    /// What the token says, if one of the keys has signed it and it is for this server.
    fn signed(&self, token: &str, header: &Header, keys: &[Signer]) -> Result<Map<String, Value>, NotOpened> {
        let validation = self.validation(header.alg);
        let mut refused = NotOpened::Forged("the token is not signed by a key that counts here");
        for signer in keys.iter().filter(|signer| signer.may_have_signed(header)) {
            match decode(token, &signer.key, &validation) {
                Ok(read) => return Ok(read.claims),
                Err(error) => match error.kind() {
                    ErrorKind::InvalidAudience => {
                        return Err(NotOpened::Misdirected("the token is for another audience"));
                    }
                    ErrorKind::InvalidIssuer => return Err(NotOpened::Misdirected("the token is of another issuer")),
                    ErrorKind::MissingRequiredClaim(claim) => {
                        return Err(NotOpened::Misdirected(match claim.as_str() {
                            "aud" => "the token does not say for whom it is (aud)",
                            "iss" => "the token does not say who has made it (iss)",
                            _ => "the token does not say when it expires (exp)",
                        }));
                    }
                    ErrorKind::Json(_) | ErrorKind::Utf8(_) => refused = NotOpened::Forged("the token cannot be read"),
                    _ => {}
                },
            }
        }
        Err(refused)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        // The time is this program's clock, not the machine's.
        validation.validate_exp = false;
        validation.validate_aud = self.audience.is_some();
        let mut required = vec!["exp"];
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    /// `exp` and `nbf`, which are seconds and may be fractions of them.
    fn timely(&self, claims: &Map<String, Value>, now: Instant) -> Result<(), NotOpened> {
        let at = |claim: &str| {
            claims.get(claim).map(|at| at.as_f64().ok_or(NotOpened::Untimely("its times are no numbers")))
        };
        let (now, leeway) = (now.as_millis() as f64 / 1_000.0, self.leeway.as_secs_f64());
        match at("exp").transpose()? {
            Some(until) if now < until + leeway => {}
            _ => return Err(NotOpened::Untimely("the token has expired")),
        }
        match at("nbf").transpose()? {
            Some(from) if now < from - leeway => Err(NotOpened::Untimely("the token does not count yet")),
            _ => Ok(()),
        }
    }
}

/// Why a token opens nothing. Nothing of it is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotOpened {
    /// Nobody who counts has signed it: that is what is counted as a failed attempt.
    Forged(&'static str),
    /// It is signed, but not for here.
    Misdirected(&'static str),
    /// It is signed, but not for now.
    Untimely(&'static str),
    /// It names no resource by this claim.
    Scopeless(String),
}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forged(what) | Self::Misdirected(what) | Self::Untimely(what) => f.write_str(what),
            Self::Scopeless(claim) => write!(f, "the token names no resource; expected a text in its claim {claim:?}"),
        }
    }
}

/// By whom tokens may be signed.
enum Signers {
    Fixed(Arc<[Signer]>),
    File { path: PathBuf, kept: Mutex<Kept> },
}

impl fmt::Debug for Signers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(_) => f.write_str("a secret"),
            Self::File { path, .. } => write!(f, "the keys in {}", path.display()),
        }
    }
}

/// A key that counts.
struct Signer {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Signer {
    /// The algorithm is the key's, never only what the token says of itself.
    fn may_have_signed(&self, header: &Header) -> bool {
        self.algorithm == header.alg && (header.kid.is_none() || self.id.is_none() || header.kid == self.id)
    }
}

/// What was read of a file.
struct Kept {
    /// As what it was read last, or could not be read.
    stamp: Option<Stamp>,
    looked_at: Option<Instant>,
    keys: Arc<[Signer]>,
}

/// By what it is seen that a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    changed_at: SystemTime,
    bytes: u64,
}

impl Stamp {
    fn of(path: &Path) -> std::io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self { changed_at: found.modified()?, bytes: found.len() })
    }
}

impl Signers {
    async fn keys(self: &Arc<Self>, now: Instant) -> Arc<[Signer]> {
        match &**self {
            Self::Fixed(keys) => return Arc::clone(keys),
            Self::File { kept, .. } => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.looked_at.is_some_and(|at| now.since(at) < LOOK_EVERY) {
                    return Arc::clone(&kept.keys);
                }
                kept.looked_at = Some(now);
            }
        }
        let again = Arc::clone(self);
        // Whoever comes meanwhile takes what was kept.
        let looked = tokio::task::spawn_blocking(move || again.look()).await;
        looked.unwrap_or_else(|_| Arc::from([]))
    }

    /// Reads the file again if it has changed.
    fn look(&self) -> Arc<[Signer]> {
        let (path, kept) = match self {
            Self::Fixed(keys) => return Arc::clone(keys),
            Self::File { path, kept } => (path, kept),
        };
        let stamp = Stamp::of(path).ok();
        let lock = || kept.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().stamp == stamp {
            return Arc::clone(&lock().keys);
        }
        let found = read(path);
        let mut kept = lock();
        kept.stamp = stamp;
        match found {
            Ok(keys) => {
                tracing::info!(path = %path.display(), keys = keys.len(), "the keys that sign tokens were read again");
                kept.keys = keys;
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "the keys that sign tokens have changed and cannot be used; the old ones count");
            }
        }
        Arc::clone(&kept.keys)
    }
}

/// The keys of a file that can be used; what is meant for other uses or algorithms is passed over.
fn read(path: &Path) -> Result<Arc<[Signer]>, JwtError> {
    use std::io::Read as _;
    let unreadable = |source| JwtError::Unreadable { path: path.to_owned(), source };
    let none = |why: String| JwtError::NoKeySet { path: path.to_owned(), why };
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(none(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    let whole: Value = serde_json::from_slice(&text).map_err(|e| none(e.to_string()))?;
    let listed = whole["keys"].as_array().ok_or_else(|| none("expected an object with a list `keys`".to_owned()))?;
    let keys: Vec<Signer> = listed.iter().filter_map(signer).take(KEYS_MAX).collect();
    match keys.is_empty() {
        true => Err(none("it holds no RSA key of 2048 bits or more and no P-256 key that signs".to_owned())),
        false => Ok(keys.into()),
    }
}

fn signer(key: &Value) -> Option<Signer> {
    let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let algorithm = match (&jwk.algorithm, jwk.common.key_algorithm) {
        (AlgorithmParameters::RSA(rsa), None | Some(KeyAlgorithm::RS256))
            if rsa.n.len() * 3 / 4 >= MODULUS_BYTES_MIN =>
        {
            Algorithm::RS256
        }
        (AlgorithmParameters::EllipticCurve(ec), None | Some(KeyAlgorithm::ES256))
            if ec.curve == EllipticCurve::P256 =>
        {
            Algorithm::ES256
        }
        _ => return None,
    };
    Some(Signer { id: jwk.common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(&jwk).ok()? })
}
