//! The listeners of a host.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use caxton_control::desired;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::host_file::{HOST_FILE, Ports, Schemes, host_file, write_private};
use super::no_room::Face;
use crate::access::Access;
use crate::admin;
use crate::config::{Loaded, TlsTable};
use crate::directory::HostDirectory;
use crate::http;
use crate::net::{BoundListener, ListenerTls, TlsFiles, bind};
use crate::reconcile::ListenerCertificate;

/// The tokens that stop the parts of a host one after another.
#[derive(Debug, Clone, Default)]
pub(super) struct Stops {
    /// Stops new calls. Cancelled first.
    pub(super) closing: CancellationToken,
    /// Stops the reconciler, the API and the lasting tasks.
    pub(super) stop: CancellationToken,
    /// Stops the probes, which answer until the host has drained.
    pub(super) probing: CancellationToken,
}

/// The bound listeners, which do not accept connections yet.
pub(super) struct Sockets {
    http: BoundListener,
    admin: BoundListener,
    probes: Option<BoundListener>,
    /// The TLS of the listeners that have some.
    tls: Vec<(TlsTable, Arc<ListenerTls>)>,
    pub(super) ports: Ports,
}

impl Sockets {
    /// Binds all listeners, and reads the files of their TLS.
    pub(super) async fn bind(loaded: &Loaded) -> anyhow::Result<Self> {
        let desired = &loaded.desired;
        let http = bind("http.listen", "--listen", desired.http.listen).await?;
        let admin = bind("admin.listen", "--admin", desired.admin.listen).await?;
        let probes = match desired.probes.listen {
            Some(address) => Some(bind("probes.listen", "--probes", address).await?),
            None => None,
        };
        let (http_tls, admin_tls) = (read_tls(TlsTable::Http, loaded)?, read_tls(TlsTable::Admin, loaded)?);
        let http = BoundListener::new(http, http_tls.clone());
        let admin = BoundListener::new(admin, admin_tls.clone());
        let probes = probes.map(|socket| BoundListener::new(socket, None));
        let scheme = |listener: &BoundListener| if listener.is_tls() { "https" } else { "http" };
        let ports = Ports {
            http: http.address()?,
            admin: admin.address()?,
            probes: probes.as_ref().map(BoundListener::address).transpose()?,
            schemes: Schemes { http: scheme(&http), admin: scheme(&admin) },
        };
        let tls = [(TlsTable::Http, http_tls), (TlsTable::Admin, admin_tls)];
        let tls = tls.into_iter().filter_map(|(table, tls)| Some((table, tls?))).collect();
        Ok(Self { http, admin, probes, tls, ports })
    }

    /// Returns the function that makes the text of the file by which commands find the host, with the certificate that
    /// the management API has then.
    pub(super) fn host_file(&self) -> impl Fn() -> String + Send + 'static {
        let admin = self.tls.iter().find(|(table, _)| *table == TlsTable::Admin).map(|(_, tls)| Arc::clone(tls));
        let ports = self.ports.clone();
        move || host_file(&ports, admin.as_ref().map(|tls| tls.current().fingerprint.clone()).as_deref())
    }

    /// Returns the certificates for the reconciler, which reads them again. The file in the data folder by which commands
    /// find the host follows that of the management API.
    pub(super) fn certificates(&self, data: &Path) -> Vec<ListenerCertificate> {
        let certificate = |(table, tls): &(TlsTable, Arc<ListenerTls>)| match table {
            TlsTable::Http => ListenerCertificate::new(*table, Arc::clone(tls), |_| {}),
            TlsTable::Admin => {
                let (ports, path) = (self.ports.clone(), data.join(HOST_FILE));
                ListenerCertificate::new(*table, Arc::clone(tls), move |fingerprint| {
                    if let Err(error) = write_private(&path, &host_file(&ports, Some(fingerprint))) {
                        tracing::error!(%error, "the commands on this machine do not learn the new certificate: {} cannot be written", path.display());
                    }
                })
            }
        };
        self.tls.iter().map(certificate).collect()
    }

    /// Returns second listeners on all sockets, for a host that cannot start yet.
    pub(super) fn try_clone(&self) -> std::io::Result<Vec<(Face, BoundListener)>> {
        let management = [Some(&self.admin), self.probes.as_ref()].into_iter().flatten();
        let faces = management.map(|listener| (Face::Management, listener)).chain([(Face::Calls, &self.http)]);
        faces.map(|(face, listener)| Ok((face, listener.try_clone()?))).collect()
    }

    /// Starts the tasks that accept connections. Each runs until its token is cancelled.
    pub(super) fn serve(
        self,
        settings: &Arc<ArcSwap<desired::HttpSpec>>,
        directory: &Arc<HostDirectory>,
        access: &Arc<Access>,
        admin_state: admin::AdminState,
        stops: &Stops,
    ) -> Vec<JoinHandle<Option<()>>> {
        let (tasks, Stops { closing, stop, probing }) = (&directory.context.tasks, stops);
        let serving =
            http::serve(self.http, Arc::clone(settings), Arc::clone(directory), Arc::clone(access), closing.clone());
        let api = admin::Api::new(admin_state, stop.clone());
        let managing = admin::serve(self.admin, api.clone(), Arc::clone(settings), stop.clone());
        let mut listeners = vec![
            tasks.vital("http-listener", closing.clone(), serving),
            tasks.vital("admin-listener", stop.clone(), managing),
        ];
        listeners.extend(self.probes.map(|listener| {
            let probes = admin::serve_probes(listener, api, Arc::clone(settings), probing.clone());
            tasks.vital("probes-listener", probing.clone(), probes)
        }));
        listeners
    }
}

/// Reads the files of a listener's TLS; `None` if it has none.
fn read_tls(table: TlsTable, loaded: &Loaded) -> anyhow::Result<Option<Arc<ListenerTls>>> {
    let Some(spec) = table.spec(&loaded.desired) else { return Ok(None) };
    match TlsFiles::new(spec, &loaded.dir).load() {
        Ok(first) => Ok(Some(ListenerTls::new(first))),
        // The files were checked with the declaration, and have changed since.
        Err(errors) => Err(anyhow::Error::from(errors.into_iter().next().expect("a failure has an error")))
            .with_context(|| format!("reading the files of [{}]", table.name())),
    }
}
