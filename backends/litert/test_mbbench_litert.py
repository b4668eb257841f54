from mbbench.testing import BackendContract


class TestLiteRt(BackendContract):
    name = "litert"
