"""The joint methods of this package."""

from __future__ import annotations

from hubmerge.methods.joint.angles import Karcher, ModelStock, Multislerp, Nuslerp
from hubmerge.methods.joint.base import JointMethod
from hubmerge.methods.joint.combination import Linear, Slerp
from hubmerge.methods.joint.competition import Pcb
from hubmerge.methods.joint.elementwise import Nearswap, Passthrough, Ram, RamplusTl, Sce
from hubmerge.methods.joint.fusion import ArceeFusion
from hubmerge.methods.joint.post import Lines, Svc
from hubmerge.methods.joint.sparse import Breadcrumbs, BreadcrumbsTies, DareLinear, DareTies, Della, DellaLinear
from hubmerge.methods.joint.spectra import IsoCts, TsvM
from hubmerge.methods.joint.task_vectors import TaskArithmetic, Ties

JOINT_METHODS: tuple[JointMethod, ...] = (
    Linear(),
    Slerp(),
    Nuslerp(),
    Multislerp(),
    Karcher(),
    TaskArithmetic(),
    Ties(),
    DareLinear(),
    DareTies(),
    Della(),
    DellaLinear(),
    Breadcrumbs(),
    BreadcrumbsTies(),
    Sce(),
    ModelStock(),
    Nearswap(),
    ArceeFusion(),
    Ram(),
    RamplusTl(),
    Passthrough(),
    TsvM(),
    IsoCts(),
    Svc(),
    Pcb(),
    Lines(),
)
