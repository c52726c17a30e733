"""
What annotations need: the aliases, protocols and literals that public signatures name.

Each is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio._internal.asgi import ASGIApp, Message, Receive, Send
    from mtaio._internal.decorators import AsyncFunction, Decorator
    from mtaio._internal.filters import Filter
    from mtaio._internal.leaders import Leader, Term
    from mtaio._internal.periodic import Overlap
    from mtaio._internal.rates import Rate
    from mtaio._internal.sentinel import UNSET, Unset
    from mtaio.app._application import ApplicationState
    from mtaio.app._error_handler import AsyncErrorHandler, ErrorReporter
    from mtaio.app._server_options import ServerOptionValues
    from mtaio.app._usage import Backend
    from mtaio.asgi._rate_limit import ClientKey, ClientLimiter
    from mtaio.asgi._request_metrics import RequestWatcher
    from mtaio.cache._cached import CachedDecorator
    from mtaio.cache._policy import EvictionPolicy
    from mtaio.clients._exchange import Acquires, AcquiresKey
    from mtaio.clients._headers import Observation, Observer, ResponseHeaders
    from mtaio.config import SettingSource, SettingValues
    from mtaio.core._intake import AckSource
    from mtaio.core._merge import Merge
    from mtaio.core._types import (
        AnyIterable,
        CallLike,
        CallOptions,
        EachOptions,
        MapOptions,
        NothingElse,
        OnError,
        Progress,
        Returned,
        Service0,
        Service1,
        Service2,
        Service3,
        StreamOptions,
    )
    from mtaio.core._via import Via
    from mtaio.events._dispatch import ErrorPolicy
    from mtaio.events._emitter import Register
    from mtaio.events._stream import Overflow
    from mtaio.logging._configure import LogSettings
    from mtaio.monitoring._delivery import Emitter
    from mtaio.monitoring._report import CheckKind, CheckStatus
    from mtaio.monitoring._watched import HasStatistics
    from mtaio.redis._store import Argument, Connection, Script, Store
    from mtaio.redis._tiered import TieredDecorator
    from mtaio.resilience._attempts import Holds, HoldsKey
    from mtaio.resilience._part import Next, StreamDecorator, Streams
    from mtaio.resilience._waits import Waits
    from mtaio.resources._quota_part import Cost, Used
    from mtaio.testing._explore import AsyncTest
    from mtaio.testing._inject import Mode
    from mtaio.testing._network._network import HostLike

__all__ = [
    "UNSET",
    "ASGIApp",
    "AckSource",
    "Acquires",
    "AcquiresKey",
    "AnyIterable",
    "ApplicationState",
    "Argument",
    "AsyncErrorHandler",
    "AsyncFunction",
    "AsyncTest",
    "Backend",
    "CachedDecorator",
    "CallLike",
    "CallOptions",
    "CheckKind",
    "CheckStatus",
    "ClientKey",
    "ClientLimiter",
    "Connection",
    "Cost",
    "Decorator",
    "EachOptions",
    "Emitter",
    "ErrorPolicy",
    "ErrorReporter",
    "EvictionPolicy",
    "Filter",
    "HasStatistics",
    "Holds",
    "HoldsKey",
    "HostLike",
    "Leader",
    "LogSettings",
    "MapOptions",
    "Merge",
    "Message",
    "Mode",
    "Next",
    "NothingElse",
    "Observation",
    "Observer",
    "OnError",
    "Overflow",
    "Overlap",
    "Progress",
    "Rate",
    "Receive",
    "Register",
    "RequestWatcher",
    "ResponseHeaders",
    "Returned",
    "Script",
    "Send",
    "ServerOptionValues",
    "Service0",
    "Service1",
    "Service2",
    "Service3",
    "SettingSource",
    "SettingValues",
    "Store",
    "StreamDecorator",
    "StreamOptions",
    "Streams",
    "Term",
    "TieredDecorator",
    "Unset",
    "Used",
    "Via",
    "Waits",
]

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio._internal.asgi": ("ASGIApp", "Message", "Receive", "Send"),
            "mtaio._internal.decorators": ("AsyncFunction", "Decorator"),
            "mtaio._internal.filters": ("Filter",),
            "mtaio._internal.leaders": ("Leader", "Term"),
            "mtaio._internal.periodic": ("Overlap",),
            "mtaio._internal.rates": ("Rate",),
            "mtaio._internal.sentinel": ("UNSET", "Unset"),
            "mtaio.app._application": ("ApplicationState",),
            "mtaio.app._error_handler": ("AsyncErrorHandler", "ErrorReporter"),
            "mtaio.app._server_options": ("ServerOptionValues",),
            "mtaio.app._usage": ("Backend",),
            "mtaio.asgi._rate_limit": ("ClientKey", "ClientLimiter"),
            "mtaio.asgi._request_metrics": ("RequestWatcher",),
            "mtaio.cache._cached": ("CachedDecorator",),
            "mtaio.cache._policy": ("EvictionPolicy",),
            "mtaio.clients._exchange": ("Acquires", "AcquiresKey"),
            "mtaio.clients._headers": ("Observation", "Observer", "ResponseHeaders"),
            "mtaio.config": ("SettingSource", "SettingValues"),
            "mtaio.core._intake": ("AckSource",),
            "mtaio.core._merge": ("Merge",),
            "mtaio.core._types": (
                "AnyIterable",
                "CallLike",
                "CallOptions",
                "EachOptions",
                "MapOptions",
                "NothingElse",
                "OnError",
                "Progress",
                "Returned",
                "Service0",
                "Service1",
                "Service2",
                "Service3",
                "StreamOptions",
            ),
            "mtaio.core._via": ("Via",),
            "mtaio.events._dispatch": ("ErrorPolicy",),
            "mtaio.events._emitter": ("Register",),
            "mtaio.events._stream": ("Overflow",),
            "mtaio.logging._configure": ("LogSettings",),
            "mtaio.monitoring._delivery": ("Emitter",),
            "mtaio.monitoring._report": ("CheckKind", "CheckStatus"),
            "mtaio.monitoring._watched": ("HasStatistics",),
            "mtaio.redis._store": ("Argument", "Connection", "Script", "Store"),
            "mtaio.redis._tiered": ("TieredDecorator",),
            "mtaio.resilience._attempts": ("Holds", "HoldsKey"),
            "mtaio.resilience._part": ("Next", "StreamDecorator", "Streams"),
            "mtaio.resilience._waits": ("Waits",),
            "mtaio.resources._quota_part": ("Cost", "Used"),
            "mtaio.testing._explore": ("AsyncTest",),
            "mtaio.testing._inject": ("Mode",),
            "mtaio.testing._network._network": ("HostLike",),
        },
    )
