//! Requests to the hub: redirects that keep the token at home, retries with growing pauses, errors that say what to do.

use super::config::Config;
use crate::app::term;
use crate::base::{Error, ErrorKind, Result};
use std::cell::Cell;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Request, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

const MAX_REDIRECTS: usize = 10;
/// The longest pause between two tries, whatever a server asks for.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// The longest answer of the API that is read.
const MAX_JSON: u64 = 32 << 20;

/// Why a request gave nothing, and whether to ask again.
#[derive(Debug)]
pub enum Failure {
    /// Asking again may help, after this pause where the server names one.
    Retry(Error, Option<Duration>),
    /// Asking again gives the same.
    Fatal(Error),
}

impl Failure {
    /// The error inside.
    pub fn into_error(self) -> Error {
        match self {
            Failure::Retry(e, _) | Failure::Fatal(e) => e,
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Failure::Fatal(e)
    }
}

/// A client of one hub.
pub struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    retries: u32,
    backoff: Duration,
    /// Whether any server has answered yet. Before, a network that is not there is not waited for.
    answered: Cell<bool>,
}

impl Client {
    /// A client for the hub that `config` names. Fails if its certificates can't be read.
    pub fn new(config: &Config) -> Result<Client> {
        let roots = match &config.certificates {
            Some(path) => read_roots(path)?,
            None => RootCerts::WebPki,
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // Redirects are followed here: the token must stay at its origin, and a redirect's headers carry the hash.
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Hashes and ranges are of the plain bytes.
            .accept_encoding("")
            .user_agent(concat!("wgpu-llm/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(Duration::from_secs(10)))
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .proxy(config.proxy.then(Proxy::try_from_env).flatten())
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        Ok(Client {
            agent: Agent::new_with_config(agent),
            endpoint: config.endpoint.clone(),
            token: config.token.clone(),
            retries: config.retries,
            backoff: config.backoff,
            answered: Cell::new(false),
        })
    }

    /// The hub's address, without a slash at the end.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How often a request is tried again.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// The body of `url` as text.
    pub fn text(&self, url: &str) -> Result<String> {
        self.retrying(|| {
            let reply = self.get(url, 0)?;
            let mut text = String::new();
            let mut body = reply.into_body().into_with_config().limit(MAX_JSON).reader();
            body.read_to_string(&mut text).map_err(|e| Failure::Retry(broken(url, e), None))?;
            Ok(text)
        })
    }

    /// The answer to GET `url`, from byte `from` on where the server can. One try; the status is 200, 206 or 416.
    pub fn get(&self, url: &str, from: u64) -> Result<Response<Body>, Failure> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let (reply, last) = self.follow("GET", url, range.as_deref(), |_| false)?;
        match reply.status().as_u16() {
            200 | 206 => Ok(reply),
            416 if from > 0 => Ok(reply),
            _ => Err(self.refusal(&reply, &last)),
        }
    }

    /// The headers of `url`: those of the hub itself, which tell the hash, not those of the store it points to.
    pub fn head(&self, url: &str) -> Result<HeaderMap> {
        self.retrying(|| {
            let (reply, last) = self.follow("HEAD", url, None, |r| r.headers().contains_key("x-linked-etag"))?;
            match reply.status().as_u16() {
                200..400 => Ok(reply.headers().clone()),
                _ => Err(self.refusal(&reply, &last)),
            }
        })
    }

    /// Runs `f` until it gives an answer, a fatal failure, or the tries are used up.
    pub fn retrying<T>(&self, mut f: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        for attempt in 0.. {
            match f() {
                Ok(value) => return Ok(value),
                Err(Failure::Retry(e, wait)) if attempt < self.retries => {
                    tracing::debug!("try {} failed: {e}", attempt + 1);
                    self.pause(attempt, wait)?;
                }
                Err(failure) => return Err(failure.into_error()),
            }
        }
        unreachable!("the loop ends with the tries")
    }

    /// Waits before try `attempt + 1`: as long as the server asks, else twice as long each time. Ctrl-C ends the wait.
    pub fn pause(&self, attempt: u32, wait: Option<Duration>) -> Result<()> {
        let pause = wait.unwrap_or_else(|| self.backoff.saturating_mul(1 << attempt.min(10))).min(MAX_PAUSE);
        let end = Instant::now() + pause;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            term::check_interrupt()?;
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        Ok(())
    }

    /// Sends a request and follows redirects until an answer is none, or `stop` says so. Gives the last address too.
    fn follow(
        &self,
        method: &str,
        url: &str,
        range: Option<&str>,
        stop: impl Fn(&Response<Body>) -> bool,
    ) -> Result<(Response<Body>, String), Failure> {
        let mut url = url.to_string();
        for _ in 0..=MAX_REDIRECTS {
            let reply = self.send(method, &url, range)?;
            let location = reply.headers().get("location").and_then(|v| v.to_str().ok());
            let (true, Some(location)) = (reply.status().is_redirection() && !stop(&reply), location) else {
                return Ok((reply, url));
            };
            let next = join(&url, location);
            if url.starts_with("https://") && !next.starts_with("https://") {
                let e = Error::new(ErrorKind::Network, "the server redirects from https to an insecure address");
                return Err(Failure::Fatal(e.at(host(&url))));
            }
            url = next;
        }
        Err(Failure::Fatal(Error::new(ErrorKind::Network, "the server redirects in circles").at(host(&url))))
    }

    fn send(&self, method: &str, url: &str, range: Option<&str>) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(method).uri(url);
        if let Some(token) = self.token.as_deref().filter(|_| origin(url) == origin(&self.endpoint)) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let request = request.body(()).map_err(|e| {
            Error::usage("not an address the hub could have").at(url).because(e).help("check HF_ENDPOINT and HF_TOKEN")
        })?;
        let reply = self.agent.run(request).map_err(|e| self.failure(url, e))?;
        self.answered.set(true);
        Ok(reply)
    }

    /// What an error without an answer means for the user.
    fn failure(&self, url: &str, e: ureq::Error) -> Failure {
        match e {
            ureq::Error::Rustls(_) => Failure::Fatal(
                Error::new(ErrorKind::Network, "the server's certificate is not trusted")
                    .at(host(url))
                    .because(e)
                    .help("behind a proxy that opens TLS, set SSL_CERT_FILE to its certificates (PEM)"),
            ),
            e if !is_unreachable(&e) => Failure::Retry(broken(url, e.into_io()), None),
            e => {
                let e = Error::new(ErrorKind::Network, "can't be reached").at(host(url)).because(e.into_io()).help(
                    "check the network, a proxy in HTTPS_PROXY, or HF_ENDPOINT; HF_HUB_OFFLINE=1 uses the cache alone",
                );
                // In the middle of a download the network may come back; at its beginning the user is to know.
                if self.answered.get() { Failure::Retry(e, None) } else { Failure::Fatal(e) }
            }
        }
    }

    /// What a status that is no success means for the user.
    fn refusal(&self, reply: &Response<Body>, url: &str) -> Failure {
        let status = reply.status().as_u16();
        let error = |what: &str| {
            // A store puts signatures into the query: they say nothing to people.
            let place = url.split('?').next().unwrap_or(url);
            Error::new(ErrorKind::Network, format!("{what} (HTTP {status})")).at(place)
        };
        let wait =
            reply.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        match status {
            401 | 403 if self.token.is_none() => Failure::Fatal(error("the hub refuses access").help(
                "check the name; for a private or gated model accept its terms on the hub and set HF_TOKEN to your access token",
            )),
            401 | 403 => Failure::Fatal(
                error("the hub refuses access with this token")
                    .help("check the name, accept the model's terms on the hub, and check that HF_TOKEN may read it"),
            ),
            404 => Failure::Fatal(error("not on the hub").help("check the names of user, repository and file")),
            408 | 500..=599 => Failure::Retry(error("the server failed").help("try again later"), wait),
            429 => Failure::Retry(
                error("the hub allows no more requests for now").help("wait some minutes, or set HF_TOKEN: accounts may ask more often"),
                wait,
            ),
            _ => Failure::Fatal(error("an answer that makes no sense here").help("check HF_ENDPOINT")),
        }
    }
}

/// The error for a connection that broke while `url` was read.
pub fn broken(url: &str, source: io::Error) -> Error {
    Error::new(ErrorKind::Network, "the connection broke").at(host(url)).because(source)
}

/// Whether no connection came about, rather than broke. Name look-ups fail with a kind of error that has no name.
fn is_unreachable(e: &ureq::Error) -> bool {
    use io::ErrorKind as Kind;
    match e {
        ureq::Error::Io(e) => !matches!(
            e.kind(),
            Kind::ConnectionReset
                | Kind::ConnectionAborted
                | Kind::BrokenPipe
                | Kind::UnexpectedEof
                | Kind::TimedOut
                | Kind::WouldBlock
                | Kind::Interrupted
                | Kind::NotConnected
        ),
        ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::ConnectProxyFailed(_)
        | ureq::Error::InvalidProxyUrl
        | ureq::Error::BadUri(_)
        | ureq::Error::Tls(_) => true,
        _ => false,
    }
}

fn read_roots(path: &Path) -> Result<RootCerts> {
    let pem = std::fs::read(path)
        .map_err(|e| Error::io("can't read the certificates", e).at(path.display()).help("check SSL_CERT_FILE"))?;
    let certs: Vec<Certificate<'static>> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(cert)) => Some(cert),
            _ => None,
        })
        .collect();
    if certs.is_empty() {
        return Err(Error::usage("no certificate in this file").at(path.display()).help("check SSL_CERT_FILE"));
    }
    Ok(RootCerts::new_with_certs(&certs))
}

/// Scheme, host and port; the user part (a credential) is left out.
pub(super) fn origin(url: &str) -> Option<(String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?.to_ascii_lowercase();
    let scheme = scheme.to_ascii_lowercase();
    let default = if scheme == "https" { ":443" } else { ":80" };
    Some((scheme, host.strip_suffix(default).map(String::from).unwrap_or(host)))
}

/// The host to name in errors.
fn host(url: &str) -> String {
    origin(url).map_or_else(|| url.to_string(), |(_, host)| host)
}

/// Where `location` leads from `base` (RFC 3986, without dot segments: servers that redirect send none).
fn join(base: &str, location: &str) -> String {
    let scheme = base.split("://").next().unwrap_or("https");
    let path_start = base.find("://").and_then(|i| base[i + 3..].find('/').map(|j| i + 3 + j)).unwrap_or(base.len());
    if location.contains("://") {
        location.to_string()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{}{location}", &base[..path_start])
    } else {
        let folder = base.rfind('/').filter(|&i| i >= path_start).map_or(base.len(), |i| i);
        format!("{}/{location}", &base[..folder])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let base = "https://hub.example/u/r/resolve/main/f";
        assert_eq!(join(base, "https://store.example/x"), "https://store.example/x");
        assert_eq!(join(base, "//store.example/x"), "https://store.example/x");
        assert_eq!(join(base, "/new/r/f"), "https://hub.example/new/r/f");
        assert_eq!(join(base, "g"), "https://hub.example/u/r/resolve/main/g");
        assert_eq!(join("https://hub.example", "g"), "https://hub.example/g");
    }

    #[test]
    fn the_origin_is_scheme_host_and_port() {
        assert_eq!(origin("https://Hub.example:443/x"), origin("https://hub.example"));
        assert_ne!(origin("http://hub.example"), origin("https://hub.example"));
        assert_ne!(origin("https://hub.example:8443"), origin("https://hub.example"));
        assert_ne!(origin("https://hub.example.evil/"), origin("https://hub.example"));
        assert_ne!(origin("https://hub.example@evil/"), origin("https://hub.example"));
        assert_eq!(origin("hub.example"), None);
    }
}
