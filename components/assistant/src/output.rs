//! The answer to the client. Its head is sent with the first event, so that an earlier problem has a status of its own.

use caxton_sdk::http::{Event, Responder, ResponseStream};
use caxton_sdk::prelude::*;
use serde::Serialize;
use serde_json::json;

use crate::problem::{Ended, Problem};

/// The answer, as far as it has come.
pub(crate) enum Output {
    /// Nothing was sent.
    Waiting(Responder),
    /// Events were sent.
    Begun(ResponseStream),
    /// The client has left.
    Over,
}

impl Output {
    pub(crate) fn new(responder: Responder) -> Self {
        Self::Waiting(responder)
    }

    /// Sends an event.
    pub(crate) fn send<T: Serialize>(&mut self, name: &str, data: &T) -> Result<(), Ended> {
        let event = Event::json(data)?.named(name);
        let mut stream = match std::mem::replace(self, Self::Over) {
            Self::Waiting(responder) => responder.events()?,
            Self::Begun(stream) => stream,
            Self::Over => return Err(Failure::unavailable("the response is over").into()),
        };
        stream.event(&event)?;
        *self = Self::Begun(stream);
        Ok(())
    }

    /// Sends the last event of an answer.
    pub(crate) fn done(&mut self, rounds: u32, finish: &str) -> Result<(), Ended> {
        self.send("done", &json!({ "rounds": rounds, "finish": finish }))
    }

    /// Ends the answer.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Begun(stream) => stream.finish(),
            Self::Waiting(_) | Self::Over => Ok(()),
        }
    }

    /// Tells the client why there is no more: as an error of HTTP if nothing was sent before, else as an event.
    pub(crate) fn fail(mut self, problem: &Problem) -> Result<(), Failure> {
        if let Self::Waiting(responder) = self {
            return responder.send(&problem.response()?);
        }
        match self.send("error", &problem.event()) {
            Ok(()) => self.finish(),
            Err(Ended::Client(failure)) => Err(failure),
            Err(Ended::Problem(problem)) => Err(Failure::fault(problem.detail)),
        }
    }
}
