"""Slicer's interface as far as the panel uses it, over PySide6 and the real MRML of slicer-core.

Attributes behave as in PythonQt: Qt properties are attributes, signals are connected by their text. What does not exist raises, also
on assignment, where PySide alone would silently add an attribute.
"""

from __future__ import annotations

import enum
import inspect
import os
import sys
import tempfile
import types
import typing
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtUiTools import QUiLoader

PARAMETER_PROPERTY = "SlicerParameterName"

# Exceptions in slots and observers: PySide and VTK print and forget them, a test must not.
slot_errors: list[BaseException] = []


def _remember(kind, error, traceback):
    slot_errors.append(error)
    sys.__excepthook__(kind, error, traceback)


def _accepted(slot) -> int:
    """How many positional arguments a slot takes."""
    parameters = inspect.signature(slot).parameters.values()
    if any(item.kind is item.VAR_POSITIONAL for item in parameters):
        return 99
    return sum(item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD) for item in parameters)


def _properties(cls) -> set[str]:
    meta = cls.staticMetaObject
    names = {meta.property(index).name() for index in range(meta.propertyCount())}
    return names - {"sizeHint", "minimumSizeHint"}  # Qt itself looks for overrides of these by attribute


def python_qt(base, extra_properties=()):
    """A subclass of a Qt class that behaves as PythonQt's wrapper of it."""
    properties = _properties(base) | set(extra_properties)

    class Wrapper(base):
        _standIn = True

        def __getattribute__(self, name):
            if name == "name":
                return QtCore.QObject.objectName(self)
            if name in properties:
                return QtCore.QObject.property(self, name)
            return super().__getattribute__(name)

        def __setattr__(self, name, value):
            if name == "name":
                QtCore.QObject.setObjectName(self, value)
            elif name in properties:
                QtCore.QObject.setProperty(self, name, value)
            elif name.startswith("_"):
                super().__setattr__(name, value)
            elif isinstance(value, QtCore.QObject) and QtCore.QObject.objectName(value) == name:
                pass  # PySide's loader puts the children of a form on it, Slicer's does not
            else:
                raise AttributeError(f"{base.__name__} has no property {name}")

        def connect(self, signature, slot):
            signal_name = signature.partition("(")[0]
            if signature not in getattr(type(self), "_signals", ()):
                normalized = QtCore.QMetaObject.normalizedSignature(signature).data().decode()
                if self.metaObject().indexOfSignal(normalized) < 0:
                    raise ValueError(f"{base.__name__} has no signal {signature}")
            wanted = _accepted(slot)

            def call(*arguments):
                slot(*arguments[:wanted])

            getattr(base, signal_name).__get__(self, base).connect(call)
            return True

    Wrapper.__name__ = Wrapper.__qualname__ = base.__name__
    return Wrapper


class _NodeComboBox(QtWidgets.QComboBox):
    """qMRMLNodeComboBox: shows the nodes of a scene; a node that is removed is deselected."""

    currentNodeChanged = QtCore.Signal(object)
    _signals = ("currentNodeChanged(vtkMRMLNode*)",)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None
        self._node = None
        self._attributes = {}
        self._tags = []

    def setMRMLScene(self, scene):
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene = scene
        self._tags = [
            scene.AddObserver(scene.NodeRemovedEvent, self._onRemoved),
            scene.AddObserver(scene.NodeAddedEvent, self._onAdded),
        ]
        self._selectFirst()

    def addAttribute(self, node_type, name, value):
        self._attributes[name] = value

    def _fits(self, node) -> bool:
        if node.GetHideFromEditors() and not QtCore.QObject.property(self, "showHidden"):
            return False
        kinds = QtCore.QObject.property(self, "nodeTypes") or []
        return any(node.IsA(kind) for kind in kinds) and all(
            node.GetAttribute(name) == value for name, value in self._attributes.items()
        )

    def _selectFirst(self):
        if self._node is not None or QtCore.QObject.property(self, "noneEnabled") in (None, True):
            return
        for index in range(self._scene.GetNumberOfNodes()):
            if self._fits(self._scene.GetNthNode(index)):
                self.setCurrentNode(self._scene.GetNthNode(index))
                return

    def _onAdded(self, caller, event):
        self._selectFirst()

    def _onRemoved(self, caller, event):
        if self._node is not None and self._node.GetScene() is None:
            self.setCurrentNode(None)
            self._selectFirst()

    def currentNode(self):
        return self._node

    def setCurrentNode(self, node):
        if node is not None and not self._fits(node):
            raise ValueError(f"{node.GetName()} does not fit this selector")
        if node is not self._node:
            self._node = node
            self.clear()
            self.addItem("None" if node is None else node.GetName())
            self.currentNodeChanged.emit(node)


class _MRMLWidget(QtWidgets.QWidget):
    def setMRMLScene(self, scene):
        self._scene = scene


class _CollapsibleButton(QtWidgets.QWidget):
    """ctkCollapsibleButton: a heading over its content."""

    def __init__(self, parent=None):
        super().__init__(parent)
        QtWidgets.QWidget.setContentsMargins(self, 0, 24, 0, 0)

    def event(self, event):
        if event.type() == QtCore.QEvent.DynamicPropertyChange:
            self.update()
        return super().event(event)

    def paintEvent(self, event):
        painter = QtGui.QPainter(self)
        bar = QtCore.QRect(0, 0, QtWidgets.QWidget.width(self), 22)
        painter.fillRect(bar, QtWidgets.QWidget.palette(self).color(QtGui.QPalette.Midlight))
        title = QtCore.QObject.property(self, "text") or ""
        painter.drawText(bar.adjusted(8, 0, 0, 0), QtCore.Qt.AlignVCenter, title)
        painter.end()


_WIDGETS = "QWidget QLabel QLineEdit QComboBox QCheckBox QSpinBox QPushButton QTableWidget QProgressBar QSlider QGroupBox QProgressDialog"


def _qt_module() -> types.ModuleType:
    module = types.ModuleType("qt")
    for name in _WIDGETS.split():
        setattr(module, name, python_qt(getattr(QtWidgets, name)))
    module.QTimer = python_qt(QtCore.QTimer)
    for name in ("Qt", "QUrl", "QFile", "QSettings"):
        setattr(module, name, getattr(QtCore, name))
    for name in ("QAbstractItemView", "QHeaderView", "QTableWidgetItem", "QVBoxLayout", "QMessageBox"):
        setattr(module, name, getattr(QtWidgets, name))
    module.QIcon = QtGui.QIcon
    module.QUiLoader = _loader_class()
    module.QFileDialog = SimpleNamespace()
    module.QDesktopServices = SimpleNamespace()
    return module


def _loader_class():
    class Loader(QUiLoader):
        """Loads a .ui with the stand-ins; a class that has none raises."""

        def createWidget(self, class_name, parent=None, name=""):
            qt, ctk, slicer = sys.modules["qt"], sys.modules["ctk"], sys.modules["slicer"]
            for module in (qt, ctk, slicer):
                cls = vars(module).get(class_name)
                if cls is not None:
                    break
            else:
                raise ValueError(f"no stand-in for {class_name}")
            widget = cls(parent)
            widget.name = name
            _kept.append(widget)  # without a reference the wrapper would be made anew as a plain Qt class
            return widget

    return Loader


_kept: list[QtCore.QObject] = []


# parameterNodeWrapper


class WithinRange:
    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum


class _Parameter:
    def __init__(self, name, annotated, default):
        self.name = name
        self.kind = typing.get_args(annotated)[0] if typing.get_origin(annotated) is typing.Annotated else annotated
        ranges = [item for item in getattr(annotated, "__metadata__", ()) if isinstance(item, WithinRange)]
        self.range = ranges[0] if ranges else None
        if self.kind not in (str, int) and not (isinstance(self.kind, type) and issubclass(self.kind, enum.Enum)):
            raise TypeError(f"{name}: no stand-in for parameters of type {self.kind}")
        first = next(iter(self.kind)) if issubclass(self.kind, enum.Enum) else self.kind()
        self.default = first if default is None else default

    def read(self, node):
        text = node.GetParameter(self.name)
        return self.kind[text] if issubclass(self.kind, enum.Enum) else self.kind(text)

    def write(self, node, value):
        if not isinstance(value, self.kind):
            raise ValueError(f"{self.name}: {value!r} is no {self.kind.__name__}")
        if self.range is not None and not self.range.minimum <= value <= self.range.maximum:
            raise ValueError(f"{self.name}: {value!r} is out of range")
        node.SetParameter(self.name, value.name if isinstance(value, enum.Enum) else str(value))


def parameterNodeWrapper(cls):
    hints = typing.get_type_hints(cls, include_extras=True)
    parameters = {name: _Parameter(name, kind, getattr(cls, name, None)) for name, kind in hints.items()}

    class Wrapper:
        allParameters = parameters

        def __init__(self, node):
            vars(self).update(parameterNode=node, _connections={})
            for item in parameters.values():
                if not node.HasParameter(item.name):
                    item.write(node, item.default)

        def __getattr__(self, name):
            return parameters[name].read(self.parameterNode) if name in parameters else self._unknown(name)

        def __setattr__(self, name, value):
            if name not in parameters:
                self._unknown(name)
            parameters[name].write(self.parameterNode, value)

        def _unknown(self, name):
            raise AttributeError(f"there is no parameter {name}")

        def connectGui(self, ui):
            bound = {
                widget.property(PARAMETER_PROPERTY): widget
                for widget in vars(ui).values()
                if widget.property(PARAMETER_PROPERTY)
            }
            for name in bound:
                if name not in parameters:
                    raise ValueError(f"Cannot find a param with the given name: {name}")
            tag = len(self._connections) + 1
            state = {"on": True, "updating": False}
            connections = []

            def refresh(caller=None, event=None):
                if state["updating"]:
                    return
                state["updating"] = True
                for name, widget in bound.items():
                    _write_widget(widget, parameters[name], getattr(self, name))
                state["updating"] = False

            for name, widget in bound.items():
                _prepare_widget(widget, parameters[name])
            refresh()
            for name, widget in bound.items():
                connections.append(_follow(widget, self, parameters[name], state))
            observer = self.parameterNode.AddObserver("ModifiedEvent", refresh)
            self._connections[tag] = (connections, observer, state)
            return tag

        def disconnectGui(self, tag):
            connections, observer, state = self._connections.pop(tag)
            for signal, slot in connections:
                signal.disconnect(slot)
            state["on"] = False
            self.parameterNode.RemoveObserver(observer)

        def StartModify(self):
            return self.parameterNode.StartModify()

        def EndModify(self, before):
            return self.parameterNode.EndModify(before)

    Wrapper.__name__ = cls.__name__
    return Wrapper


def _prepare_widget(widget, parameter):
    qt = sys.modules["qt"]
    wanted = {str: qt.QLineEdit, int: qt.QSpinBox}.get(parameter.kind, qt.QComboBox)
    if type(widget) is not wanted:
        raise ValueError(f"no connector from {type(widget).__name__} to {parameter.kind.__name__}")
    if wanted is qt.QSpinBox:
        widget.setRange(parameter.range.minimum, parameter.range.maximum)
    elif wanted is qt.QComboBox:
        widget.clear()
        label = getattr(parameter.kind, "label", lambda item: item.name)
        widget.addItems([label(item) for item in parameter.kind])


def _write_widget(widget, parameter, value):
    if parameter.kind is str:
        if widget.text != value:
            widget.text = value
    elif parameter.kind is int:
        widget.value = value
    else:
        widget.currentIndex = list(parameter.kind).index(value)


def _follow(widget, wrapper, parameter, state):
    if parameter.kind is str:
        signal = QtWidgets.QLineEdit.textChanged.__get__(widget)
        read = lambda: widget.text  # noqa: E731
    elif parameter.kind is int:
        signal = QtWidgets.QSpinBox.valueChanged.__get__(widget)
        read = lambda: widget.value  # noqa: E731
    else:
        signal = QtWidgets.QComboBox.currentIndexChanged.__get__(widget)
        read = lambda: list(parameter.kind)[widget.currentIndex]  # noqa: E731

    def changed(*_arguments):
        if state["on"] and not state["updating"]:
            setattr(wrapper, parameter.name, read())

    signal.connect(changed)
    return signal, changed


# ScriptedLoadableModule


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent = parent
        self.moduleName = type(self).__name__


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent
        self.layout = QtWidgets.QWidget.layout(parent)
        self.developerMode = False

    def resourcePath(self, name):
        return str(Path(sys.modules[self.moduleName].__file__).parent / "Resources" / name)

    def setup(self):
        pass

    def onReload(self):
        sys.modules["slicer"].util.reloadScriptedModule(self.moduleName)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self):
        assert not self.isSingletonParameterNode
        scene = sys.modules["slicer"].mrmlScene
        for index in range(scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode")):
            node = scene.GetNthNodeByClass(index, "vtkMRMLScriptedModuleNode")
            if node.GetAttribute("ModuleName") == self.moduleName:
                return node
        return scene.AddNode(self.createParameterNode())

    def createParameterNode(self):
        scene = sys.modules["slicer"].mrmlScene
        node = scene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(scene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest:
    pass


class Application:
    """slicer.app."""

    def __init__(self):
        self.temporaryPath = tempfile.mkdtemp(prefix="slicer-stand-in-")
        self.slicerHome = self.temporaryPath
        self.slots = {}
        self.pauses = 0

    def connect(self, signature, slot):
        if signature != "startupCompleted()":
            raise ValueError(f"the application has no signal {signature}")
        self.slots[signature] = slot

    def testingEnabled(self):
        return True

    def layoutManager(self):
        return None

    def pauseRender(self):
        self.pauses += 1

    def resumeRender(self):
        if self.pauses < 1:
            raise RuntimeError("rendering was not paused")
        self.pauses -= 1

    def processEvents(self):
        QtWidgets.QApplication.processEvents()


def install() -> types.ModuleType:
    """Put the stand-ins beside slicer-core's ``slicer``; returns it."""
    import slicer
    import slicer.util

    if _removed:
        for name, value in _removed.items():
            setattr(slicer, name, value)
        _removed.clear()
        sys.excepthook = _remember
        return slicer
    sys.excepthook = _remember
    QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
    sys.modules["qt"] = _qt_module()
    ctk = types.ModuleType("ctk")
    ctk.ctkCollapsibleButton = python_qt(_CollapsibleButton, ("text", "collapsed"))
    sys.modules["ctk"] = ctk
    slicer.qMRMLWidget = python_qt(_MRMLWidget, ("isEntered",))
    slicer.qMRMLNodeComboBox = python_qt(
        _NodeComboBox, ("nodeTypes", "showHidden", "noneEnabled", "addEnabled", "removeEnabled", "renameEnabled")
    )
    for name, content in {
        "ScriptedLoadableModule": [
            ScriptedLoadableModule,
            ScriptedLoadableModuleWidget,
            ScriptedLoadableModuleLogic,
            ScriptedLoadableModuleTest,
        ],
        "parameterNodeWrapper": [parameterNodeWrapper, WithinRange],
    }.items():
        module = types.ModuleType(f"slicer.{name}")
        for item in content:
            setattr(module, item.__name__, item)
        sys.modules[module.__name__] = module
        setattr(slicer, name, module)
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = lambda text: text
    i18n.translate = lambda context, text: text
    sys.modules["slicer.i18n"] = i18n
    slicer.i18n = i18n
    slicer.app = Application()
    slicer.modules = SimpleNamespace()
    return slicer


_removed: dict[str, object] = {}


def remove():
    """Take away what tells other code that it runs in the application."""
    import slicer

    for name in ("app", "modules", "mrmlScene"):
        _removed[name] = vars(slicer)[name]
        delattr(slicer, name)
    sys.excepthook = sys.__excepthook__


def new_scene(slicer):
    """An empty scene as ``slicer.mrmlScene``, with the slice views and what the application registers."""
    from ImmunoRadiomicsLib.scene import new_scene as engine_scene

    scene = engine_scene()
    for name in (
        "vtkMRMLSegmentEditorNode",
        "vtkMRMLScriptedModuleNode",
        "vtkMRMLTextNode",
        "vtkMRMLMarkupsFiducialNode",
        "vtkMRMLMarkupsFiducialStorageNode",
    ):
        if not scene.IsNodeClassRegistered(name):
            scene.RegisterNodeClass(getattr(slicer, name)())
    interaction = slicer.vtkMRMLInteractionNode()
    scene.AddNode(interaction)
    for view in ("Red", "Yellow", "Green"):
        for class_name in ("vtkMRMLSliceNode", "vtkMRMLSliceCompositeNode"):
            node = scene.CreateNodeByClass(class_name)  # with the orientations that the scene has presets for
            node.UnRegister(None)
            node.SetLayoutName(view)
            node.SetSingletonTag(view)
            scene.AddNode(node)
    slicer.mrmlScene = scene
    return scene


def read_bundle(slicer, path, cache):
    """Open a .mrb in the scene, as the application does."""
    manager, files = slicer.vtkDataIOManager(), slicer.vtkCacheManager()
    files.SetRemoteCacheDirectory(str(cache))
    manager.SetCacheManager(files)
    slicer.mrmlScene.SetDataIOManager(manager)
    messages = slicer.vtkMRMLMessageCollection()
    if not slicer.mrmlScene.ReadFromMRB(str(path), False, messages):
        raise OSError(messages.GetAllMessagesAsString())
