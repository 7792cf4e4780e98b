//! Row 36: a seed that was sealed wrongly.

use claviger::observer::{Method, Reason};
use claviger_keystore::testing::{NOW, fail_next_self_check, rotate};
use claviger_proto::v2::StatusRequest;
use tonic::Code;

use crate::calls::{encrypt, refused};
use crate::plugin::{Calls, Plugin};

#[tokio::test]
async fn row_36_a_failed_self_check_is_internal_and_only_decrypt_goes_on() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    let sealed = client.seal(&[7; 32]).await;
    fail_next_self_check(&plugin.keystore);

    // A refusal has no message: nothing that was sealed is returned.
    let failed = (Code::Internal, Reason::SelfCheckFailed.as_str().to_owned());
    assert_eq!(refused(encrypt(&mut client, &[7; 32], "").await), failed);
    // The fault is over, but nobody knows what caused it.
    assert_eq!(refused(encrypt(&mut client, &[7; 32], "").await), failed);
    assert_eq!(refused(client.status(StatusRequest {}).await), failed);
    // Another connection and another primary key change nothing.
    rotate(&plugin.keystore).await;
    plugin.keystore.sync(NOW).await.unwrap();
    let mut other = plugin.client().await;
    assert_eq!(refused(encrypt(&mut other, &[7; 32], "").await), failed);
    assert_eq!(refused(other.status(StatusRequest {}).await), failed);
    for mut client in [client, other] {
        let opened = client.open(&sealed.key_id, &sealed.ciphertext).await;
        assert_eq!(opened.unwrap(), [7; 32]);
    }

    let tally = plugin.heard(|tally| tally.opened == tally.closed).await;
    assert_eq!(tally.refusals, [Reason::SelfCheckFailed; 5]);
    let internal = |method| {
        let calls = tally.requests.iter();
        calls
            .filter(|call| **call == (method, Code::Internal))
            .count()
    };
    assert_eq!(
        (internal(Method::Encrypt), internal(Method::Status)),
        (3, 2)
    );
    plugin.stop();
    assert_eq!(plugin.stopped().await.panics, 0);
}
