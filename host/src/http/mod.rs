//! stub
use crate::commons::Commons;
use arc_swap::ArcSwap;
use caxton_control::desired::Http;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
pub(crate) async fn serve(
    listener: TcpListener,
    _s: Arc<ArcSwap<Http>>,
    commons: Arc<Commons>,
    stop: CancellationToken,
) {
    loop {
        let (stream, _) = tokio::select! { r = listener.accept() => r.unwrap(), () = stop.cancelled() => return };
        let commons = commons.clone();
        tokio::spawn(async move {
            let svc = hyper::service::service_fn(move |req: ::http::Request<hyper::body::Incoming>| {
                let commons = commons.clone();
                async move {
                    use http_body_util::BodyExt;
                    let routes = commons.routes.load();
                    let (parts, body) = req.into_parts();
                    let crate::routes::Found::Target(t, _) = routes.find(parts.uri.path(), &parts.method) else {
                        return Ok::<_, std::convert::Infallible>(
                            ::http::Response::builder()
                                .status(404)
                                .body(http_body_util::Full::new(bytes::Bytes::new()))
                                .unwrap(),
                        );
                    };
                    let body = body.collect().await.unwrap().to_bytes();
                    let r = t
                        .agent
                        .ask(crate::agent::Arrival {
                            sender: "http:x".into(),
                            performative: caxton_control::Performative::Request,
                            content: body.into(),
                            content_type: "text/plain".into(),
                            ontology: None,
                            protocol: None,
                            conversation: None,
                            patience: None,
                            headers: vec![],
                            trace: None,
                        })
                        .await;
                    let text = match r {
                        Ok((_, a)) => match a.outcome {
                            crate::wasm::Outcome::Reply(m) => m.content,
                            o => crate::agent::describe(&o).into_bytes(),
                        },
                        Err(e) => e.to_string().into_bytes(),
                    };
                    Ok(::http::Response::new(http_body_util::Full::new(bytes::Bytes::from(text))))
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), svc)
                .await;
        });
    }
}
