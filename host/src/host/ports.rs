//! The listeners of a host.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use caxton_control::{Desired, desired};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::directory::HostDirectory;
use crate::http;
use crate::net::bind;

/// The addresses of a host, as written to the ports file.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct Ports {
    pub(super) http: SocketAddr,
    /// The management API.
    pub(super) admin: SocketAddr,
    /// Probes and metrics only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) probes: Option<SocketAddr>,
}

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
    http: TcpListener,
    admin: TcpListener,
    probes: Option<TcpListener>,
    pub(super) ports: Ports,
}

impl Sockets {
    /// Binds all listeners.
    pub(super) async fn bind(desired: &Desired) -> anyhow::Result<Self> {
        let http = bind("http.listen", "--listen", desired.http.listen).await?;
        let admin = bind("admin.listen", "--admin", desired.admin.listen).await?;
        let probes = match desired.probes.listen {
            Some(address) => Some(bind("probes.listen", "--probes", address).await?),
            None => None,
        };
        let ports = Ports {
            http: http.local_addr()?,
            admin: admin.local_addr()?,
            probes: probes.as_ref().map(TcpListener::local_addr).transpose()?,
        };
        Ok(Self { http, admin, probes, ports })
    }

    /// Starts the tasks that accept connections. Each runs until its token is cancelled.
    pub(super) fn serve(
        self,
        settings: &Arc<ArcSwap<desired::HttpSpec>>,
        directory: &Arc<HostDirectory>,
        admin_state: admin::AdminState,
        stops: &Stops,
    ) -> Vec<JoinHandle<Option<()>>> {
        let (tasks, Stops { closing, stop, probing }) = (&directory.context.tasks, stops);
        let serving = http::serve(self.http, Arc::clone(settings), Arc::clone(directory), closing.clone());
        let api = admin::Api::new(admin_state, stop.clone());
        let managing = admin::serve(self.admin, api.clone(), stop.clone());
        let mut listeners = vec![
            tasks.vital("http-listener", closing.clone(), serving),
            tasks.vital("admin-listener", stop.clone(), managing),
        ];
        listeners.extend(self.probes.map(|listener| {
            tasks.vital("probes-listener", probing.clone(), admin::serve_probes(listener, api, probing.clone()))
        }));
        listeners
    }
}
