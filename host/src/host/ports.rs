//! Where a host listens, and what answers there.

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

/// Where a host listens, as it is written for programs.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct Ports {
    /// Where agents are called.
    pub(super) http: SocketAddr,
    /// Where the management API is.
    pub(super) admin: SocketAddr,
    /// Where probes and metrics alone are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) probes: Option<SocketAddr>,
}

/// What ends a host bit by bit.
#[derive(Debug, Clone, Default)]
pub(super) struct Stops {
    /// Stops taking calls.
    pub(super) closing: CancellationToken,
    /// Stops deciding.
    pub(super) stop: CancellationToken,
    /// Stops answering probes, which go on while the host drains.
    pub(super) probing: CancellationToken,
}

/// Listeners that are bound and not served yet.
pub(super) struct Sockets {
    http: TcpListener,
    admin: TcpListener,
    probes: Option<TcpListener>,
    /// Their addresses.
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

    /// Starts the tasks that answer, each until its stop.
    pub(super) fn serve(
        self,
        settings: &Arc<ArcSwap<desired::Http>>,
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
