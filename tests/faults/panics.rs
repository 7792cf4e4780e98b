//! Row 113: a fault of our own in a call.

use claviger::observer::{Method, Reason};
use tonic::Code;

use crate::connections::seed;
use crate::frames::{DECRYPT, ENCRYPT, STATUS, call};
use crate::plugin::{Calls, PANIC, Plugin};

#[tokio::test]
async fn row_113_a_panic_in_a_call_is_answered_and_harms_nobody_else() {
    let plugin = Plugin::start().await;
    let mut bystander = plugin.client().await;
    let sealed = bystander.seal(&[7; 32]).await;
    let paths = [
        (STATUS, Method::Status),
        (ENCRYPT, Method::Encrypt),
        (DECRYPT, Method::Decrypt),
    ];
    for (path, method) in paths {
        for when in ["at once", "later"] {
            let answer = call(&plugin, path, &[(PANIC, when)], &seed())
                .await
                .unwrap();
            assert_eq!(answer.code, Code::Internal, "{method:?} {when}: {answer:?}");
            assert_eq!(answer.reason.as_deref(), Some("fault"));
            let tally = plugin.tally();
            assert_eq!(tally.requests.last(), Some(&(method, Code::Internal)));
            assert_eq!(tally.refusals.last(), Some(&Reason::Fault));
        }
    }
    assert_eq!(plugin.tally().panics, 6);
    // The connection that was open goes on, and so do others.
    for mut client in [bystander, plugin.client().await] {
        let opened = client.open(&sealed.key_id, &sealed.ciphertext).await;
        assert_eq!(opened.unwrap(), [7; 32]);
    }
    plugin.stop();
    let tally = plugin.stopped().await;
    assert_eq!((tally.panics, tally.opened), (6, tally.closed));
}
