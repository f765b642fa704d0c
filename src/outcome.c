#include "outcome.h"

static const char *const names[] = {
    "running", "complete", "resolve_failed", "connect_failed", "tls_failed", "connect_timeout", "timeout", "idle_timeout",
    "send_failed", "receive_failed", "bad_response", "websocket_violation", "message_too_large", "body_failed", "sink_failed", "closed",
    "forked", "no_memory", "failed"
};

const char *osb_outcome_name(osb_outcome outcome)
{
    return names[outcome];
}

osb_outcome osb_outcome_of(CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return OSB_COMPLETE;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return OSB_RESOLVE_FAILED;
    case CURLE_COULDNT_CONNECT:
        return OSB_CONNECT_FAILED;
    case CURLE_OPERATION_TIMEDOUT: /* the connect timeout is the only one that libcurl knows of */
        return OSB_CONNECT_TIMEOUT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
        return OSB_TLS_FAILED;
    case CURLE_SEND_ERROR:
    case CURLE_SEND_FAIL_REWIND:
        return OSB_SEND_FAILED;
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
        return OSB_RECEIVE_FAILED;
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL: /* also the result of an HTTP/0.9 response */
    case CURLE_BAD_CONTENT_ENCODING:
        return OSB_BAD_RESPONSE;
    case CURLE_OUT_OF_MEMORY:
        return OSB_NO_MEMORY;
    default:
        return OSB_FAILED_OTHERWISE;
    }
}
