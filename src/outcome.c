#include "outcome.h"

static const char *const names[] = {
    "running", "complete", "resolve_failed", "proxy_failed", "connect_failed", "tls_failed", "connect_timeout", "timeout", "idle_timeout",
    "send_failed", "receive_failed", "bad_response", "websocket_violation", "message_too_large", "body_failed", "sink_failed", "closed",
    "forked", "no_memory", "no_descriptors", "failed"
};

const char *osb_outcome_name(osb_outcome outcome)
{
    return names[outcome];
}

const char *osb_outcome_message(osb_outcome outcome)
{
    switch (outcome) {
    case OSB_TIMEOUT:
        return "the timeout has run out";
    case OSB_IDLE_TIMEOUT:
        return "the idle timeout has run out";
    case OSB_CLOSED:
        return "it was closed";
    case OSB_FORKED:
        return "the process has forked";
    case OSB_NO_MEMORY:
        return "not enough memory";
    case OSB_NO_DESCRIPTORS:
        return "too many open files";
    default:
        return "";
    }
}

osb_outcome osb_outcome_of(CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return OSB_COMPLETE;
    case CURLE_COULDNT_RESOLVE_HOST:
        return OSB_RESOLVE_FAILED;
    case CURLE_COULDNT_RESOLVE_PROXY:
#if LIBCURL_VERSION_NUM >= 0x074900
    case CURLE_PROXY:
#endif
        return OSB_PROXY_FAILED;
    case CURLE_COULDNT_CONNECT:
        return OSB_CONNECT_FAILED;
    case CURLE_OPERATION_TIMEDOUT: /* libcurl knows of no other timeout than the connect timeout */
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
#if LIBCURL_VERSION_NUM >= 0x080600
    case CURLE_TOO_LARGE:
#endif
    case CURLE_UNSUPPORTED_PROTOCOL: /* also the result of an HTTP/0.9 response */
    case CURLE_BAD_CONTENT_ENCODING:
        return OSB_BAD_RESPONSE;
    case CURLE_OUT_OF_MEMORY:
        return OSB_NO_MEMORY;
    default:
        return OSB_FAILED_OTHERWISE;
    }
}

int osb_outcome_is_before_sending(osb_outcome outcome)
{
    return outcome == OSB_RESOLVE_FAILED || outcome == OSB_PROXY_FAILED || outcome == OSB_CONNECT_FAILED || outcome == OSB_TLS_FAILED
        || outcome == OSB_CONNECT_TIMEOUT || outcome == OSB_NO_DESCRIPTORS;
}
