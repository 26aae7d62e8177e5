//! The certificate authorities that a webhook is checked against: the public ones, or the operator's own.
//!
//! A self-hosted hook often has a certificate of a private authority. The file of that authority
//! replaces the public ones: alerts go to one address, so one list decides.
//!
//! Guarantees: a file without a usable certificate is refused at the start, not at the first alert;
//! an untrusted certificate and an unreachable host give different errors. Tests: below, with a
//! listener that speaks TLS.

use crate::BadHook;
use rustls::{CertificateError, RootCertStore, pki_types::CertificateDer};
use std::sync::Arc;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Trust roots: the certificates of a PEM file, or the public authorities without one.
///
/// # Errors
/// [`BadHook::Authorities`] for a file that is no PEM or holds no usable certificate.
pub(crate) fn roots(pem: Option<&[u8]>) -> Result<RootCerts, BadHook> {
    let Some(pem) = pem else { return Ok(RootCerts::WebPki) };
    let mut certificates = Vec::<Certificate<'static>>::new();
    let mut store = RootCertStore::empty();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| BadHook::Authorities)? {
            let der = CertificateDer::from(certificate.der().to_vec());
            store.add(der).map_err(|_| BadHook::Authorities)?;
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() { Err(BadHook::Authorities) } else { Ok(certificates.into()) }
}

/// The TLS configuration of connections to the hook.
pub(crate) fn tls(roots: RootCerts) -> TlsConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    TlsConfig::builder().unversioned_rustls_crypto_provider(provider).root_certs(roots).build()
}

/// The reason of a failed handshake in words, without the address; `None` if another step failed.
pub(crate) fn describe(error: &ureq::Error) -> Option<&'static str> {
    let error = match error {
        ureq::Error::Rustls(error) => error,
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref::<rustls::Error>()?,
        _ => return None,
    };
    Some(match error {
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "no trusted authority signed its certificate; name its authority's file as alert_ca",
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is for another host",
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "its certificate is not valid now; renew it, or set this machine's clock",
        rustls::Error::InvalidCertificate(_) => "its certificate is not good",
        rustls::Error::InvalidMessage(_) => "it does not speak TLS",
        _ => "the TLS handshake failed",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Alert, Alerts, Kind, Signal, State,
        test_utils::{Posted, answer},
    };
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::{
        ServerConfig, ServerConnection, StreamOwned,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    };
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        sync::mpsc::{Receiver, channel},
        thread,
        time::Duration,
    };

    const LONG: Duration = Duration::from_secs(30);
    const SOON: Duration = Duration::from_millis(5);

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        CertifiedIssuer::self_signed(params, key).expect("an authority")
    }

    /// Starts a hook with a certificate for `name` by `authority`: its address, what is posted, handshakes.
    fn listen_tls(
        authority: &CertifiedIssuer<'static, KeyPair>,
        name: &str,
    ) -> (String, Receiver<Posted>, Receiver<bool>) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, authority).expect("signed");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("of this provider")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("they fit");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (send, got) = channel();
        let (shook, hands) = channel();
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut connection = ServerConnection::new(Arc::new(config.clone())).expect("a config");
                let done = connection.complete_io(&mut stream).is_ok();
                if shook.send(done).is_err() {
                    break;
                }
                if done && !answer(StreamOwned::new(connection, stream), 200, &send) {
                    break;
                }
            }
        });
        (format!("https://localhost:{port}/hook/secret"), got, hands)
    }

    fn signal() -> Signal {
        let alert = Alert { kind: Kind::ReadsFail, what: "some".into(), next: "act".into(), due: None };
        Signal::new("sync1x".into(), Some(9), State::Raised, alert)
    }

    #[test]
    fn an_alert_reaches_a_hook_whose_authority_is_ones_own() {
        let authority = authority();
        let (url, got, _hands) = listen_tls(&authority, "localhost");
        let pem = authority.pem();
        let alerts = Alerts::to(Some(&url), Some(pem.as_bytes())).expect("an address");
        alerts.send(signal());
        let posted = got.recv_timeout(LONG).expect("it arrives");
        assert_eq!(posted.line, "POST /hook/secret HTTP/1.1");
        assert_eq!(posted.json["what"], "some");
        assert!(alerts.flush(LONG));
    }

    #[test]
    fn a_certificate_that_is_not_believed_is_tried_within_bounds_and_holds_up_nothing() {
        let (mine, other) = (authority(), authority());
        for (name, pem) in
            [("localhost", None), ("localhost", Some(other.pem())), ("elsewhere.example", Some(mine.pem()))]
        {
            let (url, got, hands) = listen_tls(&mine, name);
            let roots = roots(pem.as_ref().map(String::as_bytes)).expect("certificates");
            let alerts = Alerts::paced(&url, roots, SOON).expect("an address");
            alerts.send(signal());
            assert!(alerts.flush(LONG), "given up");
            alerts.send(signal());
            assert!(alerts.flush(LONG), "the thread lives");
            let hands: Vec<bool> = hands.try_iter().collect();
            assert!(hands.len() <= 16 && !hands.contains(&true), "{name}: {hands:?}");
            assert!(got.try_recv().is_err(), "nothing is told to a stranger");
        }
    }

    #[test]
    fn what_failed_is_said_and_the_address_is_not() {
        let (mine, other) = (authority(), authority());
        let fails = |url: &str, pem: String| {
            let tls = tls(roots(Some(pem.as_bytes())).expect("a certificate"));
            let agent = ureq::Agent::from(ureq::Agent::config_builder().tls_config(tls).build());
            let error = agent.post(url).send("x").expect_err("it is not believed");
            describe(&error).expect("the handshake failed").to_owned()
        };
        let (url, _got, _hands) = listen_tls(&mine, "localhost");
        let why = fails(&url, other.pem());
        assert!(why.contains("alert_ca"), "{why}");
        let (url, _got, _hands) = listen_tls(&mine, "elsewhere.example");
        let why = fails(&url, mine.pem());
        assert!(why.contains("another host"), "{why}");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("https://{}/", listener.local_addr().expect("it is bound"));
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a caller");
            // The answer of a server that expects plain HTTP.
            let _ = stream.read(&mut [0; 512]).and_then(|_| stream.write_all(b"HTTP/1.1 400 Bad\r\n\r\n"));
        });
        let why = fails(&url, mine.pem());
        assert!(why.contains("does not speak TLS"), "{why}");
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let key = KeyPair::generate().expect("a key").serialize_pem();
        let broken = authority().pem().replace("MI", "XX");
        for bad in ["", "no PEM", &key, &broken] {
            assert_eq!(roots(Some(bad.as_bytes())).err(), Some(BadHook::Authorities), "{bad}");
        }
        let two = authority().pem() + &authority().pem();
        assert!(matches!(roots(Some(two.as_bytes())), Ok(RootCerts::Specific(all)) if all.len() == 2));
        assert!(matches!(roots(None), Ok(RootCerts::WebPki)));
    }
}
