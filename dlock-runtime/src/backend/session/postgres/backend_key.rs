//! The process number that the server gave in its start-up message: a pooler gives one of its own.
//!
//! The driver keeps it to itself, but writes it into every cancel request, and such a request can be written to
//! something that is no socket.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::CancelToken;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// Length, code, process number and secret, four bytes each.
const REQUEST: usize = 16;

/// The process number that a session was told. `None`: the driver did not write what it is known to write.
pub(crate) fn process_id(token: &CancelToken) -> Option<i32> {
    let mut written = Vec::new();
    let paper = Paper(&mut written);
    // Nothing in it waits.
    token.cancel_query_raw(paper, Plain).now_or_never()?.ok()?;
    let request = written.last_chunk::<REQUEST>()?;
    let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = *request;
    Some(i32::from_be_bytes([a, b, c, d]))
}

/// What is written, for reading it; to the question for TLS it answers yes.
struct Paper<'w>(&'w mut Vec<u8>);

impl AsyncRead for Paper<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0 {
            buffer.put_slice(b"S");
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Paper<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().0.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// TLS that changes nothing.
struct Plain;

impl<'w> TlsConnect<Paper<'w>> for Plain {
    type Stream = Paper<'w>;
    type Error = io::Error;
    type Future = Ready<io::Result<Paper<'w>>>;

    fn connect(self, paper: Paper<'w>) -> Self::Future {
        ready(Ok(paper))
    }
}

impl TlsStream for Paper<'_> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}
