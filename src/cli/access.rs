//! Who may ask a server beside those who have a key.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::SecretString;

use super::Desk;
use super::error::{Error, with_causes};
use crate::config::Tokens;
use crate::http::{Jwt, Options};

/// The secret that signs tokens. A variable only: arguments of a process can be seen by others.
const SECRET: &str = "ALDIS_JWT_SECRET";

#[derive(Debug, Args)]
pub(super) struct Access {
    /// Opens to tokens (JWT) that a key in this file has signed with RS256 or ES256: a JSON Web Key Set, read again when it
    /// changes
    #[arg(long, env = "ALDIS_JWT_KEYS", value_name = "FILE")]
    jwt_keys: Option<PathBuf>,
    /// Opens to tokens (JWT) that the secret in this file has signed with HS256; the secret itself may be in ALDIS_JWT_SECRET
    #[arg(long, env = "ALDIS_JWT_SECRET_FILE", value_name = "FILE", conflicts_with = "jwt_keys")]
    jwt_secret_file: Option<PathBuf>,
    /// The claim of a token that names the resource whose threads it opens [default: resource]
    #[arg(long, env = "ALDIS_JWT_CLAIM", value_name = "NAME")]
    jwt_claim: Option<String>,
    /// Only tokens for this audience
    #[arg(long, env = "ALDIS_JWT_AUDIENCE", value_name = "NAME")]
    jwt_audience: Option<String>,
    /// Only tokens of this issuer
    #[arg(long, env = "ALDIS_JWT_ISSUER", value_name = "NAME")]
    jwt_issuer: Option<String>,
    /// How many keys and tokens from one address may open nothing in a minute [default: 30]
    #[arg(long, env = "ALDIS_FAILURES_MAX", value_name = "N")]
    failures_max: Option<u32>,
    /// The addresses of proxies in front of it, whose X-Forwarded-For counts
    #[arg(long, env = "ALDIS_PROXIES", value_delimiter = ',', value_name = "ADDRESS")]
    proxy: Option<Vec<IpAddr>>,
}

impl Access {
    /// What was asked, here or by the settings, beside these.
    pub(super) fn options(&self, desk: &Desk, others: Options) -> Result<Options, Error> {
        let settings = &desk.config.settings.serve;
        let signed = match self.signed()? {
            None => of_settings(desk, &settings.jwt)?,
            signed => signed,
        };
        Ok(Options {
            jwt: signed.map(|jwt| self.narrowed(jwt, &settings.jwt)),
            failures_max: self.failures_max.unwrap_or(settings.failures_max),
            proxies: self.proxy.clone().unwrap_or_else(|| settings.proxies.clone()),
            ..others
        })
    }

    /// Tokens of whoever signs them.
    fn signed(&self) -> Result<Option<Jwt>, Error> {
        let secret = std::env::var(SECRET).ok().filter(|secret| !secret.is_empty()).map(SecretString::from);
        let jwt = match (&self.jwt_keys, &self.jwt_secret_file, secret) {
            (None, None, None) => return Ok(None),
            (Some(keys), None, None) => Jwt::with_keys(keys),
            (None, Some(file), None) => Jwt::with_secret(&content(file)?),
            (None, None, Some(secret)) => Jwt::with_secret(&secret),
            _ => {
                let what =
                    format!("tokens are signed in one way: --jwt-keys, --jwt-secret-file or {SECRET}, not several");
                return Err(Error::Usage(what));
            }
        };
        jwt.map(Some).map_err(refused)
    }

    fn narrowed(&self, jwt: Jwt, settings: &Tokens) -> Jwt {
        let jwt = jwt.claim(self.jwt_claim.as_ref().unwrap_or(&settings.claim));
        let jwt = self.jwt_audience.iter().chain(&settings.audience).take(1).fold(jwt, Jwt::audience);
        self.jwt_issuer.iter().chain(&settings.issuer).take(1).fold(jwt, Jwt::issuer)
    }
}

/// Tokens of whoever signs them, as the settings say.
fn of_settings(desk: &Desk, tokens: &Tokens) -> Result<Option<Jwt>, Error> {
    let folder = desk.config.folder();
    let jwt = match (&tokens.keys, &tokens.secret) {
        (None, None) => return Ok(None),
        (Some(keys), None) => Jwt::with_keys(folder.join(keys)),
        (None, Some(secret)) => {
            let unusable = |what: String| Error::Usage(format!("serve.jwt.secret: {what}"));
            Jwt::with_secret(&secret.get(&desk.environment, folder).map_err(unusable)?)
        }
        (Some(_), Some(_)) => {
            return Err(Error::Usage(
                "tokens are signed in one way: serve.jwt.keys or serve.jwt.secret, not both".to_owned(),
            ));
        }
    };
    jwt.map(Some).map_err(refused)
}

fn refused(error: crate::http::JwtError) -> Error {
    Error::Usage(with_causes(&error))
}

/// The secret in a file, without the end of its line.
fn content(file: &Path) -> Result<SecretString, Error> {
    let text = std::fs::read_to_string(file);
    let text = text.map_err(Error::io(format!("the secret in {} cannot be read", file.display())))?;
    Ok(SecretString::from(text.trim_end_matches(['\r', '\n'])))
}
