//! stub
use crate::commons::Commons;
use crate::control::Control;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
pub(crate) struct AdminState;
impl AdminState {
    pub(crate) fn new(_: Control, _: Arc<Commons>, _: (), _: &std::path::Path) -> anyhow::Result<Self> {
        Ok(Self)
    }
}
pub(crate) async fn serve(_: tokio::net::TcpListener, _: AdminState, stop: CancellationToken) {
    stop.cancelled().await
}
