from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RetrieveRequest(_message.Message):
    __slots__ = ("request_id", "user_id", "query_id", "store_id", "as_of_ms", "count", "retriever")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    RETRIEVER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    user_id: str
    query_id: str
    store_id: str
    as_of_ms: int
    count: int
    retriever: str
    def __init__(self, request_id: _Optional[str] = ..., user_id: _Optional[str] = ..., query_id: _Optional[str] = ..., store_id: _Optional[str] = ..., as_of_ms: _Optional[int] = ..., count: _Optional[int] = ..., retriever: _Optional[str] = ...) -> None: ...

class PreRankRequest(_message.Message):
    __slots__ = ("request_id", "user_id", "query_id", "store_id", "as_of_ms", "item_ids", "count", "ranker")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    RANKER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    user_id: str
    query_id: str
    store_id: str
    as_of_ms: int
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    count: int
    ranker: str
    def __init__(self, request_id: _Optional[str] = ..., user_id: _Optional[str] = ..., query_id: _Optional[str] = ..., store_id: _Optional[str] = ..., as_of_ms: _Optional[int] = ..., item_ids: _Optional[_Iterable[str]] = ..., count: _Optional[int] = ..., ranker: _Optional[str] = ...) -> None: ...

class RecommendRequest(_message.Message):
    __slots__ = ("request_id", "user_id", "query_id", "store_id", "as_of_ms", "count", "retriever", "ranker")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    RETRIEVER_FIELD_NUMBER: _ClassVar[int]
    RANKER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    user_id: str
    query_id: str
    store_id: str
    as_of_ms: int
    count: int
    retriever: str
    ranker: str
    def __init__(self, request_id: _Optional[str] = ..., user_id: _Optional[str] = ..., query_id: _Optional[str] = ..., store_id: _Optional[str] = ..., as_of_ms: _Optional[int] = ..., count: _Optional[int] = ..., retriever: _Optional[str] = ..., ranker: _Optional[str] = ...) -> None: ...

class AnswerItem(_message.Message):
    __slots__ = ("item_id", "score", "click_probability", "cart_probability", "order_probability", "source")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CLICK_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    CART_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    ORDER_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    score: float
    click_probability: float
    cart_probability: float
    order_probability: float
    source: str
    def __init__(self, item_id: _Optional[str] = ..., score: _Optional[float] = ..., click_probability: _Optional[float] = ..., cart_probability: _Optional[float] = ..., order_probability: _Optional[float] = ..., source: _Optional[str] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("request_id", "items", "as_of_ms", "model_version", "context_digest", "context_parts", "retriever", "ranker", "is_known_user", "is_known_query", "degraded_by", "num_unknown_items", "num_duplicate_items")
    class ContextPartsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_PARTS_FIELD_NUMBER: _ClassVar[int]
    RETRIEVER_FIELD_NUMBER: _ClassVar[int]
    RANKER_FIELD_NUMBER: _ClassVar[int]
    IS_KNOWN_USER_FIELD_NUMBER: _ClassVar[int]
    IS_KNOWN_QUERY_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_BY_FIELD_NUMBER: _ClassVar[int]
    NUM_UNKNOWN_ITEMS_FIELD_NUMBER: _ClassVar[int]
    NUM_DUPLICATE_ITEMS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    items: _containers.RepeatedCompositeFieldContainer[AnswerItem]
    as_of_ms: int
    model_version: str
    context_digest: str
    context_parts: _containers.ScalarMap[str, str]
    retriever: str
    ranker: str
    is_known_user: bool
    is_known_query: bool
    degraded_by: str
    num_unknown_items: int
    num_duplicate_items: int
    def __init__(self, request_id: _Optional[str] = ..., items: _Optional[_Iterable[_Union[AnswerItem, _Mapping]]] = ..., as_of_ms: _Optional[int] = ..., model_version: _Optional[str] = ..., context_digest: _Optional[str] = ..., context_parts: _Optional[_Mapping[str, str]] = ..., retriever: _Optional[str] = ..., ranker: _Optional[str] = ..., is_known_user: _Optional[bool] = ..., is_known_query: _Optional[bool] = ..., degraded_by: _Optional[str] = ..., num_unknown_items: _Optional[int] = ..., num_duplicate_items: _Optional[int] = ...) -> None: ...
