# SPDX-License-Identifier: MIT
"""Our engine as Dynamo's unified backend contract sees it.

Dynamo's `Worker` drives the lifecycle (`start`, `generate`, `abort`, `cleanup`)
and owns discovery, signals and the order of shutdown. It drains no aggregated
worker by itself: `cleanup` does.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from dynamo._core import Context
from dynamo.common.backend.engine import EngineConfig as Registration
from dynamo.common.backend.engine import LLMEngine, LlmRegistration
from dynamo.common.backend.health_check import build_health_check_payload, is_probe
from dynamo.common.backend.metrics import register_engine_registry
from dynamo.common.backend.publisher import ZmqSource
from dynamo.common.backend.worker import WorkerConfig
from dynamo.common.config_dump import dump_config
from dynamo.llm import ModelInput
from dynamo.llm.exceptions import EngineShutdown, HttpError, InvalidArgument, Unknown

from dynamo_tokenspeed.protocol import (
    Abort,
    Admitted,
    Capacity,
    Control,
    ControlReply,
    EngineMessage,
    Rejected,
    RequestFailed,
    Stats,
    StepOutput,
)
from dynamo_tokenspeed.worker.args import parse_args
from dynamo_tokenspeed.worker.dynamo_versions import construct, fields_of, structural_tags_off
from dynamo_tokenspeed.worker.engine_deaths import EngineDeaths
from dynamo_tokenspeed.worker.engine_process import ENGINE_MODULE, EngineProcess
from dynamo_tokenspeed.worker.errors import (
    DEAD_ENGINE_EXIT_CODE,
    StartError,
    Stopped,
    UsageError,
)
from dynamo_tokenspeed.worker.kv_events import subscriber_endpoint
from dynamo_tokenspeed.worker.last_line import end_process
from dynamo_tokenspeed.worker.metrics import End, RequestMetrics, WorkerMetrics
from dynamo_tokenspeed.worker.model_directory import resolve_model
from dynamo_tokenspeed.worker.queue_limit import QueueLimit
from dynamo_tokenspeed.worker.request import Limits, check_request
from dynamo_tokenspeed.worker.request_timeout import RequestTimeout
from dynamo_tokenspeed.worker.snapshots import SnapshotLoop
from dynamo_tokenspeed.worker.streams import Chunk, Stream, StreamTable
from dynamo_tokenspeed.worker.worker_args import WorkerArgs

logger = logging.getLogger(__name__)

CONTROLS = {"clear_kv_blocks": "clear_prefix_cache", "flush_cache": "clear_prefix_cache"}
_CONTROL_SECONDS = 10.0
_PROBE_SECONDS = 60.0  # Dynamo waits less: DYN_HEALTH_CHECK_REQUEST_TIMEOUT, 3 s
_UNREGISTER_SECONDS = 1.0
_FAILING_SECONDS = 0.3  # for the frontends to read the errors of their streams


class TokenSpeedEngine(LLMEngine):  # type: ignore[misc]
    """One engine process, its streams, and Dynamo's view of both."""

    def __init__(
        self,
        args: WorkerArgs,
        *,
        engine_module: str = ENGINE_MODULE,
    ) -> None:
        self._args = args
        self._engine_module = engine_module
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process: EngineProcess | None = None
        self._capacity: Capacity | None = None
        self._limits: Limits | None = None
        self._metrics = RequestMetrics()
        self._streams = StreamTable(self._metrics)
        self._queue_limit = QueueLimit(
            args.max_queued_requests, args.engine.max_num_seqs, self._streams
        )
        self._by_context: dict[str, Stream] = {}
        self._request_ids = itertools.count(1)
        self._seeds = random.Random(args.seed) if args.seed is not None else random.SystemRandom()
        self._calls: dict[int, asyncio.Future[ControlReply]] = {}
        self._call_ids = itertools.count(1)
        self._snapshots = SnapshotLoop()
        self._endpoint: Any = None
        self._gone: str | None = None  # why no new request is taken
        self._leaving: asyncio.Task[None] | None = None
        self._timeout: asyncio.Task[None] | None = None
        self._start_error: StartError | None = None
        self._asked_to_stop: Stopped | None = None

    # -- life cycle -----------------------------------------------------------

    @classmethod
    async def from_args(
        cls, argv: list[str] | None = None
    ) -> tuple[TokenSpeedEngine, WorkerConfig]:
        args = await resolve_model(parse_args(argv))
        if len(args.served_model_names) > 1 and "model_aliases" not in fields_of(Registration):
            raise UsageError(
                f"--served-model-name has {len(args.served_model_names)} names, but this "
                "ai-dynamo serves one: give one, or install ai-dynamo 1.6"
            )
        dump_config(args.dynamo.dump_config_to, args.for_dump())
        config = WorkerConfig.from_runtime_config(
            args.dynamo,
            model_name=args.model,
            served_model_name=args.served_model_names[0],
            model_input=ModelInput.Tokens,
            **structural_tags_off(WorkerConfig),
        )
        # For tests: another program that speaks the protocol.
        module = os.environ.get("TS_ENGINE_MODULE", ENGINE_MODULE)
        return cls(args, engine_module=module), config

    async def start(self, worker_id: int) -> Registration:
        """Raises `StartError` with the engine's own sentence."""
        self._loop = asyncio.get_running_loop()
        self._process = EngineProcess(
            self._args.engine,
            self._receive,
            self._engine_died,
            self._engine_module,
            step_timeout=self._args.step_timeout,
            name_request=self._name_request,
        )
        try:
            if self._asked_to_stop is not None:
                raise self._asked_to_stop
            capacity = await self._process.start()
        except StartError as error:
            self._start_error = error
            raise
        self._capacity = capacity
        self._limits = Limits.of(capacity, self._args.table, self._args.defaults)
        self._snapshots.stats = Stats(pages_free=capacity.num_pages)
        if self._args.request_timeout:
            timeout = RequestTimeout(self._args.request_timeout, self._streams, self._end_late)
            self._timeout = self._loop.create_task(timeout.run())
        logger.info("generation defaults: %s", self._args.defaults)
        logger.info(
            "engine process %s: %d pages of %d tokens, context %d, %d sequences, "
            "weights %.1f MB, KV cache %.1f MB",
            self._process.pid,
            capacity.num_pages,
            capacity.page_size,
            capacity.max_model_len,
            capacity.max_num_seqs,
            capacity.weight_bytes / 1e6,
            capacity.kv_bytes / 1e6,
        )
        return construct(
            Registration,
            model=self._args.model,
            served_model_name=self._args.served_model_names[0],
            model_aliases=list(self._args.served_model_names[1:]),
            llm=construct(
                LlmRegistration,
                context_length=capacity.max_model_len,
                kv_cache_block_size=capacity.page_size,
                total_kv_blocks=capacity.num_pages,
                max_num_seqs=capacity.max_num_seqs,
                max_num_batched_tokens=capacity.max_num_batched_tokens,
            ),
        )

    def stop_loading(self, signal_name: str) -> None:
        """Asked to stop: a model that is still loading is not waited for."""
        if self._capacity is None:
            self._asked_to_stop = Stopped(f"stopped by {signal_name} before the engine was ready")
            if self._process is not None:
                self._process.give_up(self._asked_to_stop)

    def raise_start_error(self) -> None:
        """Dynamo's Worker wraps what `start` raises in an exception of its own."""
        if self._start_error is not None:
            raise self._start_error

    async def cleanup(self) -> None:
        """Let running streams finish, hand the rest to other workers, end the engine process."""
        if self._gone is None:
            self._gone = "this worker is shutting down"
        if self._streams:
            await self._drain()
        if self._timeout is not None:
            self._timeout.cancel()
        await self._snapshots.stop()
        process, self._process = self._process, None
        if process is not None:
            await process.stop()
            logger.info("engine process ended")

    async def _drain(self) -> None:
        seconds = self._args.drain_seconds
        logger.info("waiting up to %g s for %d running streams", seconds, len(self._streams))
        try:
            await asyncio.wait_for(self._streams.all_closed(), seconds)
        except TimeoutError:
            logger.info("handing %d streams to other workers", len(self._streams))
        # EngineShutdown is what makes a frontend migrate a stream.
        leaving = EngineShutdown("this worker is shutting down")
        request_ids = self._streams.fail_all(leaving, End.HANDED_ON)
        if request_ids:
            self._send(Abort(request_ids))
        await asyncio.sleep(_FAILING_SECONDS)  # the last chunks and errors leave this process

    # -- requests -------------------------------------------------------------

    async def generate(
        self, request: dict[str, Any], context: Context
    ) -> AsyncGenerator[Chunk, None]:
        if is_probe(request):
            yield await self._answer_probe()
            return
        stream = self._take_in(request, context.metadata.copy())
        context_id = context.id()
        self._by_context[context_id] = stream
        try:
            if context.is_stopped():
                self._abort(stream)
            while True:
                chunk = await stream.next_chunk()
                yield chunk
                if "finish_reason" in chunk:
                    return
        finally:
            if self._by_context.get(context_id) is stream:  # a retry may have the same id
                del self._by_context[context_id]
            self._abort(stream)  # only if the consumer left before the end

    async def abort(self, context: Context) -> None:
        stream = self._by_context.get(context.id())
        if stream is not None:
            self._abort(stream)

    def _take_in(self, request: dict[str, Any], metadata: Mapping[str, str]) -> Stream:
        try:
            return self._submit(request, metadata)
        except EngineShutdown:
            self._metrics.end(End.HANDED_ON)
            raise
        except HttpError:
            self._metrics.end(End.QUEUE_FULL)
            raise
        except Exception:
            self._metrics.end(End.REFUSED)
            raise

    def _submit(self, request: dict[str, Any], metadata: Mapping[str, str]) -> Stream:
        if self._gone is not None or self._limits is None:
            raise EngineShutdown(self._gone or "this worker is not ready")
        self._queue_limit.refuse_if_full(self._snapshots.stats)
        submit = check_request(
            request, next(self._request_ids), self._limits, self._seeds, metadata
        )
        stream = Stream(
            submit.request_id,
            len(submit.token_ids) // 4,
            stop_token_ids=frozenset(submit.stop_token_ids),
            wants_logprobs=submit.sampling.logprobs >= 0,
        )
        if not self._send(submit):
            raise EngineShutdown("the engine process is not there")
        self._streams.add(stream)  # once nothing can fail; its tokens come in a later turn
        return stream

    def _end_late(self, stream: Stream, error: Exception) -> None:
        logger.warning("request %s: %s", self._name_request(stream.request_id), error)
        self._streams.fail(stream.request_id, error, End.TIMEOUT)
        self._send(Abort([stream.request_id]))

    async def _answer_probe(self) -> Chunk:
        """The health canary asks whether the engine still moves, so that is what is tried.

        However long the queue or the step: no request is computed, none is counted, nothing enters
        the prefix cache.
        """
        if self._process is None or self._gone is not None:
            raise EngineShutdown(self._gone or "this worker is not ready")
        if not await self._process.gives_a_sign(_PROBE_SECONDS):
            raise Unknown(f"the engine has given no sign of life for {_PROBE_SECONDS:g} s")
        return {"token_ids": [], "index": 0, "finish_reason": "stop"}

    def _abort(self, stream: Stream) -> None:
        if self._streams.cancel(stream):
            self._send(Abort([stream.request_id]))

    # -- the engine process ---------------------------------------------------

    def _send(self, message: Any) -> bool:
        return self._process is not None and self._process.send(message)

    def _receive(self, message: EngineMessage) -> None:
        if isinstance(message, StepOutput):
            self._streams.deliver(message)
            self._snapshots.stats = message.stats
        elif isinstance(message, Admitted):
            self._streams.admit(memoryview(message.request_ids).cast("Q"))
        elif isinstance(message, Rejected):
            refusal = InvalidArgument(message.sentence)
            self._streams.fail(message.request_id, refusal, End.REFUSED)
        elif isinstance(message, RequestFailed):  # EngineShutdown would let another worker try it
            logger.error("request %d: %s", message.request_id, message.sentence)
            self._streams.fail(message.request_id, Unknown(message.sentence), End.FAILED)
        elif isinstance(message, ControlReply):
            call = self._calls.pop(message.call_id, None)
            if call is not None and not call.done():
                call.set_result(message)

    def _engine_died(self, sentence: str) -> None:
        """Frontends may migrate its requests, but for suspects. Then this process ends."""
        self._gone = sentence
        for context_id in EngineDeaths().record(self._by_context):
            suspicion = Unknown(f"{sentence}, as did another one that computed this request")
            self._streams.fail(self._by_context[context_id].request_id, suspicion, End.FAILED)
        self._streams.fail_all(EngineShutdown(sentence), End.HANDED_ON)
        for call in self._calls.values():
            if not call.done():
                call.set_exception(Unknown(sentence))
        self._leaving = asyncio.get_running_loop().create_task(self._leave(sentence))

    async def _leave(self, sentence: str) -> None:
        if self._endpoint is not None:
            try:
                await asyncio.wait_for(
                    self._endpoint.unregister_endpoint_instance(), _UNREGISTER_SECONDS
                )
            except Exception as error:  # the end comes either way
                logger.warning("could not unregister: %s", error)
        await asyncio.sleep(_FAILING_SECONDS)
        if self._process is not None:
            await self._process.stop()
        end_process(f"{sentence}; this worker has ended", DEAD_ENGINE_EXIT_CODE)

    def _name_request(self, request_id: int) -> str:
        """As in the logs of the frontend."""
        for context_id, stream in self._by_context.items():
            if stream.request_id == request_id:
                return context_id
        return f"{request_id} (aborted)"

    # -- what Dynamo asks for -------------------------------------------------

    async def on_endpoint_ready(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    async def kv_event_sources(self) -> list[ZmqSource]:
        if self._capacity is None or not self._capacity.kv_events_endpoint:
            return []
        endpoint = subscriber_endpoint(self._capacity.kv_events_endpoint)
        return [ZmqSource(endpoint, self._args.kv_events.topic, dp_rank=0)]

    def component_metrics_dp_ranks(self) -> list[int]:
        return [0]

    def attach_snapshot_publisher(self, publisher: Any) -> None:
        assert self._capacity is not None and self._loop is not None
        self._snapshots.start(self._loop, publisher, self._capacity.num_pages)

    async def register_prometheus(self, metrics: Any) -> None:
        collector = WorkerMetrics(self._metrics, lambda: self._snapshots.stats)
        register_engine_registry(metrics, collector.registry)

    async def health_check_payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = build_health_check_payload(bos_token_id=0)
        return payload

    async def is_quiescent(self) -> bool:
        return not self._streams

    def supported_controls(self) -> set[str]:
        return set(CONTROLS)

    async def engine_control(self, control: str, body: dict[str, Any]) -> dict[str, Any]:
        call_id = next(self._call_ids)
        reply: asyncio.Future[ControlReply] = asyncio.get_running_loop().create_future()
        self._calls[call_id] = reply
        try:
            if not self._send(Control(call_id, CONTROLS[control])):
                raise EngineShutdown("the engine process is not there")
            answer = await asyncio.wait_for(reply, _CONTROL_SECONDS)
        finally:
            self._calls.pop(call_id, None)
        if answer.error:
            return {"status": "error", "message": answer.error}
        return {"status": "ok", **answer.result}
